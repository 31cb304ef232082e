// A server and a client of Go's standard library, for tests. Each prints one JSON object a line.
//
//	peer serve ADDRESS [CERTIFICATE KEY [CLIENT_CA]]
//	peer call URL PROTOCOL COUNT BYTES [CA [CERTIFICATE KEY]]
//	peer leave URL PROTOCOL MILLISECONDS [CA [CERTIFICATE KEY]]
//
// PROTOCOL is h1, h2 (by TLS) or h2c (by preface, in clear text).
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

func authority(file string) *x509.CertPool {
	text, err := os.ReadFile(file)
	must(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return pool
}

// The body comes back as it arrives; its digest follows in a trailer.
func echo(w http.ResponseWriter, r *http.Request) {
	// Otherwise its HTTP/1.1 reads the rest of the body away as soon as it writes.
	must(http.NewResponseController(w).EnableFullDuplex())
	w.Header().Set("Trailer", "X-Digest")
	w.Header().Set("X-Proto", r.Proto)
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		w.Header().Set("X-Client", r.TLS.PeerCertificates[0].DNSNames[0])
	}
	sum := sha256.New()
	_, err := io.Copy(io.MultiWriter(w, sum), r.Body)
	if err == nil {
		w.Header().Set("X-Digest", hex.EncodeToString(sum.Sum(nil)))
	}
}

// Answers nothing until the client has left.
func wait(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	tell(map[string]any{"event": "begun"})
	select {
	case <-r.Context().Done():
		tell(map[string]any{"event": "left", "seconds": time.Since(began).Seconds()})
	case <-time.After(20 * time.Second):
		tell(map[string]any{"event": "never left"})
	}
}

func serve(address string, files []string) {
	handler := http.NewServeMux()
	handler.HandleFunc("/echo", echo)
	handler.HandleFunc("/wait", wait)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: handler, Protocols: protocols, TLSConfig: &tls.Config{}}
	if len(files) == 3 {
		server.TLSConfig.ClientCAs = authority(files[2])
		server.TLSConfig.ClientAuth = tls.RequireAndVerifyClientCert
	}
	listener, err := net.Listen("tcp", address)
	must(err)
	tell(map[string]any{"event": "listening"})
	if len(files) > 1 {
		must(server.ServeTLS(listener, files[0], files[1]))
	}
	must(server.Serve(listener))
}

func client(protocol string, files []string) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(protocol == "h1")
	protocols.SetHTTP2(protocol == "h2")
	protocols.SetUnencryptedHTTP2(protocol == "h2c")
	config := &tls.Config{}
	if len(files) > 0 {
		config.RootCAs = authority(files[0])
	}
	if len(files) == 3 {
		pair, err := tls.LoadX509KeyPair(files[1], files[2])
		must(err)
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{Protocols: protocols, TLSClientConfig: config, MaxIdleConnsPerHost: 1000}
	return &http.Client{Transport: transport, Timeout: 60 * time.Second}
}

func one(c *http.Client, url string, size int) (*http.Response, error) {
	sent := make([]byte, size)
	rand.Read(sent)
	// A reader of which nothing is known but that it ends: no Content-Length.
	body := func() (io.ReadCloser, error) { return io.NopCloser(io.MultiReader(bytes.NewReader(sent))), nil }
	first, _ := body()
	request, err := http.NewRequest("POST", url, first)
	if err != nil {
		return nil, err
	}
	// What an overload refused by REFUSED_STREAM Go asks again, where it has the body once more.
	request.GetBody = body
	response, err := c.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(sent)
	if !bytes.Equal(sent, got) {
		return nil, fmt.Errorf("status %d, %d bytes came back of %d", response.StatusCode, len(got), size)
	}
	if digest := response.Trailer.Get("X-Digest"); digest != hex.EncodeToString(sum[:]) {
		return nil, fmt.Errorf("the trailer says %q", digest)
	}
	return response, nil
}

func call(c *http.Client, url string, count, size int) {
	var group sync.WaitGroup
	errors := make(chan string, count)
	told := make(chan map[string]any, count)
	for range count {
		group.Add(1)
		go func() {
			defer group.Done()
			response, err := one(c, url, size)
			if err != nil {
				errors <- err.Error()
				return
			}
			told <- map[string]any{
				"client":   response.Proto,
				"upstream": response.Header.Get("X-Proto"),
				"identity": response.Header.Get("X-Client"),
			}
		}()
	}
	group.Wait()
	result := map[string]any{"good": len(told), "failed": len(errors)}
	if len(errors) > 0 {
		result["first"] = <-errors
	} else {
		for name, value := range <-told {
			result[name] = value
		}
	}
	tell(result)
}

func leave(c *http.Client, url string, after time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), after)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	must(err)
	_, err = c.Do(request)
	tell(map[string]any{"left": err != nil && ctx.Err() != nil})
}

func main() {
	arguments := os.Args[1:]
	switch arguments[0] {
	case "serve":
		serve(arguments[1], arguments[2:])
	case "call":
		count, err := strconv.Atoi(arguments[3])
		must(err)
		size, err := strconv.Atoi(arguments[4])
		must(err)
		call(client(arguments[2], arguments[5:]), arguments[1], count, size)
	case "leave":
		milliseconds, err := strconv.Atoi(arguments[3])
		must(err)
		leave(client(arguments[2], arguments[4:]), arguments[1], time.Duration(milliseconds)*time.Millisecond)
	}
}
