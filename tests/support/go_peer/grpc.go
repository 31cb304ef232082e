// A server and a client of gRPC by Go's own library, for tests. Messages are bytes. Each prints one JSON object a line.
//
//	peer serve ADDRESS
//	peer unary ADDRESS COUNT BYTES
//	peer stream ADDRESS COUNT BYTES
//	peer fail ADDRESS
//	peer wait ADDRESS MILLISECONDS    (the client's deadline)
//	peer leave ADDRESS MILLISECONDS   (it cancels then)
package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const service = "/test.Service/"

// Bytes as they are, where others have messages of protobuf.
type raw struct{}

func (raw) Marshal(v interface{}) ([]byte, error) { return *(v.(*[]byte)), nil }

func (raw) Unmarshal(data []byte, v interface{}) error {
	*(v.(*[]byte)) = append([]byte(nil), data...)
	return nil
}

func (raw) Name() string   { return "proto" }
func (raw) String() string { return "proto" }

// Echo sends each message back, Fail fails, Wait waits for the end of its call and tells of it.
func answer(_ interface{}, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	ctx := stream.Context()
	switch method {
	case service + "Fail":
		stream.SetTrailer(metadata.Pairs("x-trailing-bin", "\x00\xff\x01"))
		return status.Error(codes.ResourceExhausted, "100 % wrong: é")
	case service + "Wait":
		until, hasDeadline := ctx.Deadline()
		tell(map[string]interface{}{"event": "begun", "deadline": hasDeadline, "left_ms": time.Until(until).Milliseconds()})
		<-ctx.Done()
		tell(map[string]interface{}{"event": "ended", "why": ctx.Err().Error()})
		return status.FromContextError(ctx.Err()).Err()
	}
	for {
		var message []byte
		if err := stream.RecvMsg(&message); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
	}
}

func serve(address string) {
	listener, err := net.Listen("tcp", address)
	must(err)
	server := grpc.NewServer(grpc.CustomCodec(raw{}), grpc.UnknownServiceHandler(answer))
	tell(map[string]interface{}{"event": "listening"})
	must(server.Serve(listener))
}

func call(ctx context.Context, to *grpc.ClientConn, method string, message []byte, options ...grpc.CallOption) ([]byte, error) {
	var got []byte
	err := to.Invoke(ctx, service+method, &message, &got, append(options, grpc.ForceCodec(raw{}))...)
	return got, err
}

func unary(to *grpc.ClientConn, count int, size int) {
	var good int
	var lock sync.Mutex
	var group sync.WaitGroup
	for number := 0; number < count; number++ {
		group.Add(1)
		go func(number int) {
			defer group.Done()
			message := bytes.Repeat([]byte{byte(number)}, size)
			got, err := call(context.Background(), to, "Echo", message)
			lock.Lock()
			defer lock.Unlock()
			if err == nil && bytes.Equal(got, message) {
				good++
			}
		}(number)
	}
	group.Wait()
	tell(map[string]interface{}{"good": good})
}

func stream(to *grpc.ClientConn, count int, size int) {
	description := grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	both, err := to.NewStream(context.Background(), &description, service+"Echo", grpc.ForceCodec(raw{}))
	must(err)
	go func() {
		for number := 0; number < count; number++ {
			message := bytes.Repeat([]byte{byte(number)}, size)
			must(both.SendMsg(&message))
		}
		must(both.CloseSend())
	}()
	good := 0
	for {
		var got []byte
		err := both.RecvMsg(&got)
		if err == io.EOF {
			break
		}
		must(err)
		if bytes.Equal(got, bytes.Repeat([]byte{byte(good)}, size)) {
			good++
		}
	}
	tell(map[string]interface{}{"good": good})
}

func fail(to *grpc.ClientConn) {
	var trailer metadata.MD
	_, err := call(context.Background(), to, "Fail", nil, grpc.Trailer(&trailer))
	told := status.Convert(err)
	tell(map[string]interface{}{
		"code": told.Code().String(), "message": told.Message(), "binary": []byte(trailer.Get("x-trailing-bin")[0]),
	})
}

func ended(ctx context.Context, to *grpc.ClientConn) {
	_, err := call(ctx, to, "Wait", nil)
	tell(map[string]interface{}{"code": status.Code(err).String()})
}

func main() {
	number := func(at int) int {
		value, err := strconv.Atoi(os.Args[at])
		must(err)
		return value
	}
	if os.Args[1] == "serve" {
		serve(os.Args[2])
		return
	}
	to, err := grpc.Dial(os.Args[2], grpc.WithInsecure())
	must(err)
	defer to.Close()
	switch os.Args[1] {
	case "unary":
		unary(to, number(3), number(4))
	case "stream":
		stream(to, number(3), number(4))
	case "fail":
		fail(to)
	case "wait":
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(number(3))*time.Millisecond)
		defer cancel()
		ended(ctx, to)
	case "leave":
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Duration(number(3))*time.Millisecond, cancel)
		ended(ctx, to)
	}
}
