// Clients and servers of the JDK alone, for tests: java.net.http, HttpURLConnection, com.sun.net.httpserver.
//
//	java Peer.java AUTHORITY SERVER.p12 CLIENT.p12
//
// Prints the ports of its two servers, in clear text and by mutual TLS. Then each line of standard input is a command,
// whose words are told apart by spaces, and is answered by one JSON object a line:
//
//	call WAY URL COUNT BYTES     COUNT calls at once, each of which sends so much and gets it back
//	get WAY METHOD URL           one, without a body
//	refused WAY URL BYTES        one that may be answered before it is sent
//	leave WAY URL                one that is given up once its server has begun, and what the server says
//	old URL PROXY_PORT METHOD    by HttpURLConnection, through a proxy
//	heard                        what a server says next of itself
//
// WAY is h1, h2 (offers `Upgrade: h2c` in clear text), h2-1.2 or h2-1.3 (TLS, with a certificate), h2-nobody (without).

import com.sun.net.httpserver.*;
import java.io.*;
import java.net.*;
import java.net.http.*;
import java.net.http.HttpClient.Version;
import java.security.*;
import java.security.cert.*;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;
import javax.net.ssl.*;

public class Peer {
    static final char[] PASSWORD = "test".toCharArray();
    static final BlockingQueue<String> EVENTS = new LinkedBlockingQueue<>();
    static final Map<String, HttpClient> CLIENTS = new HashMap<>();
    static SSLContext named, nobody;

    static SSLContext context(String authority, String own) throws Exception {
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        try (InputStream in = new FileInputStream(authority)) {
            var certificate = CertificateFactory.getInstance("X.509").generateCertificate(in);
            trusted.setCertificateEntry("ca", certificate);
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(trusted);
        KeyManager[] keys = null;
        if (own != null) {
            KeyStore store = KeyStore.getInstance("PKCS12");
            try (InputStream in = new FileInputStream(own)) {
                store.load(in, PASSWORD);
            }
            KeyManagerFactory factory = KeyManagerFactory.getInstance("PKIX");
            factory.init(store, PASSWORD);
            keys = factory.getKeyManagers();
        }
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys, trust.getTrustManagers(), null);
        return context;
    }

    // The servers

    static void handle(HttpExchange exchange) throws IOException {
        String path = exchange.getRequestURI().getPath();
        Headers head = exchange.getResponseHeaders();
        head.set("X-Port", "" + exchange.getRemoteAddress().getPort());
        head.set("X-Upgrade", exchange.getRequestHeaders().containsKey("Upgrade")
            || exchange.getRequestHeaders().containsKey("Http2-settings") ? "yes" : "no");
        if (exchange instanceof HttpsExchange)
            head.set("X-Client", ((HttpsExchange) exchange).getSSLSession().getPeerPrincipal().toString());
        try {
            switch (path) {
                case "/echo":
                    byte[] body = exchange.getRequestBody().readAllBytes();
                    exchange.sendResponseHeaders(200, body.length == 0 ? -1 : body.length);
                    exchange.getResponseBody().write(body);
                    break;
                case "/refuse":
                    exchange.sendResponseHeaders(413, -1);
                    break;
                case "/drop":
                    EVENTS.add("dropped");
                    throw new IOException("dropped");
                case "/wait":
                    wait(exchange);
                    break;
                default:
                    exchange.sendResponseHeaders(Integer.parseInt(path.substring(1)), -1);
            }
        } finally {
            exchange.close();
        }
    }

    // Goes on answering until the client has left.
    static void wait(HttpExchange exchange) throws IOException {
        EVENTS.add("begun");
        exchange.sendResponseHeaders(200, 0);
        try {
            while (true) {
                exchange.getResponseBody().write('.');
                exchange.getResponseBody().flush();
                Thread.sleep(10);
            }
        } catch (IOException | InterruptedException e) {
            EVENTS.add("left");
        }
    }

    static int serve(SSLContext context) throws Exception {
        InetSocketAddress address = new InetSocketAddress("127.0.0.1", 0);
        HttpServer server = context == null ? HttpServer.create(address, 0) : HttpsServer.create(address, 0);
        if (context != null)
            ((HttpsServer) server).setHttpsConfigurator(new HttpsConfigurator(context) {
                public void configure(HttpsParameters parameters) {
                    SSLParameters mutual = context.getDefaultSSLParameters();
                    mutual.setNeedClientAuth(true);
                    parameters.setSSLParameters(mutual);
                }
            });
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", Peer::handle);
        server.start();
        return server.getAddress().getPort();
    }

    // The clients

    static HttpClient client(String way) {
        return CLIENTS.computeIfAbsent(way, any -> {
            HttpClient.Builder builder = HttpClient.newBuilder();
            builder.version(way.startsWith("h1") ? Version.HTTP_1_1 : Version.HTTP_2);
            builder.sslContext(way.endsWith("nobody") ? nobody : named);
            if (way.contains("-1.")) {
                SSLParameters parameters = new SSLParameters();
                parameters.setProtocols(new String[] {"TLSv" + way.substring(3)});
                builder.sslParameters(parameters);
            }
            return builder.build();
        });
    }

    static HttpRequest.Builder request(String url) {
        return HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(60));
    }

    static String told(HttpResponse<byte[]> response) {
        HttpHeaders head = response.headers();
        return json("status", response.statusCode(), "version", response.version(), "size", response.body().length,
            "port", head.firstValue("x-port").orElse(""), "client", head.firstValue("x-client").orElse(""),
            "upgrade", head.firstValue("x-upgrade").orElse(""), "length", head.firstValue("content-length").orElse(""));
    }

    static String call(String way, String url, int count, int size) throws Exception {
        byte[] sent = new byte[size];
        new Random(count).nextBytes(sent);
        List<CompletableFuture<HttpResponse<byte[]>>> calls = new ArrayList<>();
        List<HttpRequest> requests = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            // Half of them are of a length that is not known before.
            HttpRequest.BodyPublisher body = i % 2 == 0 ? HttpRequest.BodyPublishers.ofByteArray(sent)
                : HttpRequest.BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(sent));
            requests.add(request(url).POST(body).build());
            calls.add(client(way).sendAsync(requests.get(i), HttpResponse.BodyHandlers.ofByteArray()));
        }
        int good = 0;
        Set<String> seen = new TreeSet<>();
        for (int i = 0; i < count; i++) {
            HttpResponse<byte[]> response = whole(way, requests.get(i), calls.get(i));
            good += Arrays.equals(sent, response.body()) ? 1 : 0;
            seen.add(response.version() + " " + response.headers().firstValue("x-client").orElse(""));
        }
        return json("good", good, "seen", String.join("; ", seen));
    }

    // On a busy machine the sidecar refuses some in an overload, and says so: then once more.
    static HttpResponse<byte[]> whole(String way, HttpRequest asked, CompletableFuture<HttpResponse<byte[]>> call)
            throws Exception {
        while (true) {
            try {
                HttpResponse<byte[]> response = call.get();
                if (response.statusCode() != 503) return response;
            } catch (ExecutionException e) {
                if (!e.toString().contains("Stream not processed")) throw e;
            }
            Thread.sleep(100);
            call = client(way).sendAsync(asked, HttpResponse.BodyHandlers.ofByteArray());
        }
    }

    // Once its server has begun; an overload's refusal is asked again.
    static String leave(String way, String url) throws Exception {
        while (true) {
            var call = client(way).sendAsync(request(url).build(), HttpResponse.BodyHandlers.ofByteArray());
            String event = null;
            while (event == null && !call.isDone()) event = EVENTS.poll(50, TimeUnit.MILLISECONDS);
            if (event != null) {
                call.cancel(true);
                return json("first", event, "then", EVENTS.take());
            }
        }
    }

    static String old(String url, int proxy, String method) throws Exception {
        Proxy through = new Proxy(Proxy.Type.HTTP, new InetSocketAddress("127.0.0.1", proxy));
        HttpURLConnection call = (HttpURLConnection) new URL(url).openConnection(through);
        call.setRequestMethod(method);
        if (method.equals("POST")) {
            call.setDoOutput(true);
            call.getOutputStream().write(new byte[1000]);
        }
        int status = call.getResponseCode();
        InputStream in = status < 400 ? call.getInputStream() : call.getErrorStream();
        int size = in == null ? 0 : in.readAllBytes().length;
        return json("status", status, "size", size, "port", Objects.toString(call.getHeaderField("X-Port"), ""));
    }

    // What it is asked, and what it says

    static String json(Object... pairs) {
        return IntStream.range(0, pairs.length / 2)
            .mapToObj(i -> quoted(pairs[2 * i]) + ": " + quoted(pairs[2 * i + 1]))
            .collect(Collectors.joining(", ", "{", "}"));
    }

    static String quoted(Object value) {
        if (value instanceof Number || value instanceof Boolean) return value.toString();
        return '"' + value.toString().replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", " ") + '"';
    }

    static String answer(String[] w) throws Exception {
        switch (w[0]) {
            case "call":
                return call(w[1], w[2], Integer.parseInt(w[3]), Integer.parseInt(w[4]));
            case "get":
                HttpRequest one = request(w[3]).method(w[2], HttpRequest.BodyPublishers.noBody()).build();
                return told(whole(w[1], one, client(w[1]).sendAsync(one, HttpResponse.BodyHandlers.ofByteArray())));
            case "refused":
                HttpRequest.BodyPublisher body = HttpRequest.BodyPublishers.ofByteArray(new byte[Integer.parseInt(w[3])]);
                HttpRequest asking = request(w[2]).expectContinue(true).POST(body).build();
                return told(whole(w[1], asking, client(w[1]).sendAsync(asking, HttpResponse.BodyHandlers.ofByteArray())));
            case "leave":
                return leave(w[1], w[2]);
            case "old":
                return old(w[1], Integer.parseInt(w[2]), w[3]);
            default:
                return json("event", EVENTS.take());
        }
    }

    public static void main(String[] files) throws Exception {
        named = context(files[0], files[2]);
        nobody = context(files[0], null);
        System.out.println(json("clear", serve(null), "tls", serve(context(files[0], files[1]))));
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = commands.readLine()) != null; ) {
            String said;
            try {
                said = answer(line.split(" "));
            } catch (Exception e) {
                said = json("error", e.toString());
            }
            System.out.println(said);
        }
        System.exit(0);
    }
}
