// Node's socket.io with one event: node node.cjs PORT (NODE_PATH names the folder it is installed in)
const { Server } = require("socket.io");

const server = new Server(Number(process.argv[2]));
server.on("connection", (socket) => socket.on("echo", (payload, answer) => answer(payload)));
