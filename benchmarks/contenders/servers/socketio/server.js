// Socket.IO with its Redis adapter, set up as its documentation advises: an adapter with two Redis
// connections, `bufferutil` beside `ws`, and the first request of a connection let go of.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const [port, redis] = process.argv.slice(2);
const publishing = createClient({ url: redis });
const subscribing = publishing.duplicate();
await Promise.all([publishing.connect(), subscribing.connect()]);

const { TLS_CERTIFICATE, TLS_KEY } = process.env;
const http = TLS_CERTIFICATE
  ? createTlsServer({ cert: readFileSync(TLS_CERTIFICATE), key: readFileSync(TLS_KEY) })
  : createServer();
const io = new Server(http, { adapter: createAdapter(publishing, subscribing) });
io.engine.on("connection", (connection) => {
  connection.request = null;
});
io.on("connection", (socket) => socket.join(`user:${socket.handshake.auth.user}`));
http.listen({ port: Number(port), host: "127.0.0.1", backlog: 4096 });
