const fs = require("fs");
const nodemailer = require("nodemailer");

const task = JSON.parse(process.argv[1]);
const transport = nodemailer.createTransport({
    host: "127.0.0.1",
    port: task.port,
    name: "nodemailer.example",
    secure: task.tls === "implicit",
    requireTLS: task.tls === "starttls",
    ignoreTLS: task.tls === "off",
    tls: { ca: fs.readFileSync(task.ca), servername: "localhost" },
    authMethod: task.mechanism || undefined,
    auth: task.mechanism ? { user: task.user, pass: task.password } : undefined,
});
transport
    .sendMail({ envelope: { from: task.from, to: [task.to], use8BitMime: task.eight_bit }, raw: fs.readFileSync(task.file) })
    .then((info) => console.log(info.response), (error) => { console.error(error); process.exitCode = 1; });
