// oauth2-mock-server as the token service of a tenant, which also tells Dovecot whose a token is.
//
//   node token_service.js TOKEN_PATH MAILBOX LIFETIME known|unknown --port PORT
//
// Prints a line for each token that it grants. With `unknown` it disowns them all afterwards.
const { OAuth2Server } = require("oauth2-mock-server");

// How much longer than said a token is honoured, so that a busy machine has the time to show it.
const GRACE = 3;

const [path, mailbox, lifetime, standing, , port] = process.argv.slice(2);

async function main() {
  const server = new OAuth2Server(undefined, undefined, { endpoints: { token: path } });
  await server.issuer.keys.generate("RS256");
  server.service.on("beforeTokenSigning", (token) => {
    token.payload.exp = token.payload.iat + Number(lifetime);
  });
  const granted = new Map();
  server.service.on("beforeResponse", (response, request) => {
    const { grant_type, client_id, client_secret, scope } = request.body;
    response.body.expires_in = Number(lifetime);
    granted.set(response.body.access_token, Date.now() / 1000 + Number(lifetime) + GRACE);
    console.log(["granted", grant_type, client_id, client_secret, scope].join(" "));
  });
  // Its introspection endpoint does not read what is posted, so this one tells.
  server.service.on("beforeUserinfo", (response, request) => {
    const token = (request.headers.authorization || "").replace(/^Bearer /, "");
    const active = standing === "known" && granted.get(token) > Date.now() / 1000;
    response.body = active ? { active, email: mailbox } : { active: false };
  });
  await server.start(Number(port), "127.0.0.1");
}

main();
