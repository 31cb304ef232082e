// grpc-java's client and server, for tests: bytes in, bytes out, without generated code.
//
//	java -cp … GrpcPeer.java
//
// Prints the port of its server. Then each line of standard input is a command, whose words are told apart by spaces,
// and is answered by one line:
//
//	echo PORT COUNT              so many calls, one after the other
//	down PORT COUNT BYTES        a stream of so many messages of that size
//	up PORT COUNT BYTES          the same from the client
//	fail PORT                    an error with words and binary metadata
//	slow PORT MILLISECONDS       a call with a deadline, which only the server ends
//	cancel PORT                  a call that its client gives up
//	heard                        how the server's next slow call began or ended

import io.grpc.*;
import io.grpc.netty.*;
import io.grpc.stub.*;
import java.io.*;
import java.net.*;
import java.util.*;
import java.util.concurrent.*;

public class GrpcPeer {
    static final BlockingQueue<String> EVENTS = new LinkedBlockingQueue<>();
    static final Map<Integer, ManagedChannel> CHANNELS = new HashMap<>();
    static final Metadata.Key<byte[]> BINARY = Metadata.Key.of("x-end-bin", Metadata.BINARY_BYTE_MARSHALLER);
    static final MethodDescriptor.Marshaller<byte[]> BYTES = new MethodDescriptor.Marshaller<>() {
        public InputStream stream(byte[] value) {
            return new ByteArrayInputStream(value);
        }

        public byte[] parse(InputStream in) {
            try {
                return in.readAllBytes();
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }
    };
    static final MethodDescriptor<byte[], byte[]> ECHO = method("Echo", MethodDescriptor.MethodType.UNARY);
    static final MethodDescriptor<byte[], byte[]> FAIL = method("Fail", MethodDescriptor.MethodType.UNARY);
    static final MethodDescriptor<byte[], byte[]> SLOW = method("Slow", MethodDescriptor.MethodType.UNARY);
    static final MethodDescriptor<byte[], byte[]> DOWN = method("Down", MethodDescriptor.MethodType.SERVER_STREAMING);
    static final MethodDescriptor<byte[], byte[]> UP = method("Up", MethodDescriptor.MethodType.CLIENT_STREAMING);

    static MethodDescriptor<byte[], byte[]> method(String name, MethodDescriptor.MethodType type) {
        return MethodDescriptor.<byte[], byte[]>newBuilder().setType(type).setFullMethodName("test.Service/" + name)
            .setRequestMarshaller(BYTES).setResponseMarshaller(BYTES).build();
    }

    // The server

    static void fail(byte[] request, StreamObserver<byte[]> answer) {
        Metadata trailers = new Metadata();
        trailers.put(BINARY, new byte[] {0, -1, 1});
        answer.onError(Status.FAILED_PRECONDITION.withDescription("100 % wrong: \u00e9").asRuntimeException(trailers));
    }

    static void slow(byte[] request, StreamObserver<byte[]> answer) {
        EVENTS.add("begun");
        Context.current().addListener(
            context -> EVENTS.add(context.cancellationCause() instanceof TimeoutException ? "late" : "left"), Runnable::run);
    }

    static void down(byte[] request, StreamObserver<byte[]> answer) {
        String[] words = new String(request).split(" ");
        ServerCallStreamObserver<byte[]> stream = (ServerCallStreamObserver<byte[]>) answer;
        int[] left = {Integer.parseInt(words[0])};
        stream.setOnReadyHandler(() -> {
            while (left[0] > 0 && stream.isReady()) {
                left[0]--;
                stream.onNext(new byte[Integer.parseInt(words[1])]);
                if (left[0] == 0) stream.onCompleted();
            }
        });
    }

    static StreamObserver<byte[]> up(StreamObserver<byte[]> answer) {
        long[] size = {0};
        return new StreamObserver<>() {
            public void onNext(byte[] message) {
                size[0] += message.length;
            }

            public void onError(Throwable error) {}

            public void onCompleted() {
                answer.onNext(("" + size[0]).getBytes());
                answer.onCompleted();
            }
        };
    }

    static int serve() throws IOException {
        ServerServiceDefinition service = ServerServiceDefinition.builder("test.Service")
            .addMethod(ECHO, ServerCalls.asyncUnaryCall((request, answer) -> {
                answer.onNext(request);
                answer.onCompleted();
            }))
            .addMethod(FAIL, ServerCalls.asyncUnaryCall(GrpcPeer::fail))
            .addMethod(SLOW, ServerCalls.asyncUnaryCall(GrpcPeer::slow))
            .addMethod(DOWN, ServerCalls.asyncServerStreamingCall(GrpcPeer::down))
            .addMethod(UP, ServerCalls.asyncClientStreamingCall(GrpcPeer::up)).build();
        return NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", 0)).addService(service).build().start()
            .getPort();
    }

    // The client

    static Channel channel(String port) {
        return CHANNELS.computeIfAbsent(Integer.valueOf(port),
            to -> NettyChannelBuilder.forAddress("127.0.0.1", to).usePlaintext().enableRetry().build());
    }

    static CallOptions within(long milliseconds) {
        return CallOptions.DEFAULT.withDeadlineAfter(milliseconds, TimeUnit.MILLISECONDS);
    }

    static String up(Channel channel, int count, int size) throws Exception {
        CompletableFuture<String> told = new CompletableFuture<>();
        var stream = ClientCalls.asyncClientStreamingCall(channel.newCall(UP, within(60_000)), new StreamObserver<byte[]>() {
            public void onNext(byte[] answer) {
                told.complete(new String(answer));
            }

            public void onError(Throwable error) {
                told.completeExceptionally(error);
            }

            public void onCompleted() {}
        });
        for (int i = 0; i < count; i++) stream.onNext(new byte[size]);
        stream.onCompleted();
        return told.get();
    }

    static String answer(String[] w) throws Exception {
        Channel channel = w.length > 1 ? channel(w[1]) : null;
        CallOptions patient = within(60_000);
        switch (w[0]) {
            case "echo":
                long good = 0;
                for (int i = 0; i < Integer.parseInt(w[2]); i++)
                    good += ClientCalls.blockingUnaryCall(channel, ECHO, patient, new byte[i]).length == i ? 1 : 0;
                return "" + good;
            case "down":
                long size = 0;
                var stream = ClientCalls.blockingServerStreamingCall(channel, DOWN, patient, (w[2] + " " + w[3]).getBytes());
                while (stream.hasNext()) size += stream.next().length;
                return "" + size;
            case "up":
                return up(channel, Integer.parseInt(w[2]), Integer.parseInt(w[3]));
            case "fail":
                return new String(ClientCalls.blockingUnaryCall(channel, FAIL, patient, new byte[0]));
            case "slow":
                // Told in a field that its own clock does not watch: the answer is what the sidecar makes of the server's end.
                Metadata told = new Metadata();
                told.put(Metadata.Key.of("x-request-timeout-ms", Metadata.ASCII_STRING_MARSHALLER), w[2]);
                Channel bound = ClientInterceptors.intercept(channel, MetadataUtils.newAttachHeadersInterceptor(told));
                return new String(ClientCalls.blockingUnaryCall(bound, SLOW, patient, new byte[0]));
            case "cancel":
                var call = ClientCalls.futureUnaryCall(channel.newCall(SLOW, patient), new byte[0]);
                String begun = EVENTS.take();
                call.cancel(true);
                return begun;
            default:
                return EVENTS.take();
        }
    }

    static String words(Throwable error) {
        if (!(error instanceof StatusRuntimeException)) return error.toString();
        StatusRuntimeException status = (StatusRuntimeException) error;
        byte[] end = status.getTrailers() == null ? null : status.getTrailers().get(BINARY);
        return status.getStatus().getCode() + ": " + status.getStatus().getDescription()
            + (end == null ? "" : " " + Arrays.toString(end));
    }

    public static void main(String[] none) throws Exception {
        PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), true, "UTF-8");
        out.println(serve());
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = commands.readLine()) != null; ) {
            String said;
            try {
                said = answer(line.split(" "));
            } catch (Exception e) {
                said = words(e.getCause() instanceof StatusRuntimeException ? e.getCause() : e);
            }
            out.println(said.replace("\n", " "));
        }
        System.exit(0);
    }
}
