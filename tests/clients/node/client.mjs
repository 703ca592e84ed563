// A charger controller that knows powerd by its README and its .proto files alone.
//
//   node client.mjs --address 127.0.0.1:7433 --protos ../../../protos --evse CA-319 --controller cc-pod
//   node client.mjs --rules ../rules.json          the verdict on each of these messages
//
// Prints one JSON line for everything it gets. Exit 0 = both ways worked, 1 = not.
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { connect } from "./api.mjs";
import { refusal } from "./lease.mjs";
import { stream } from "./stream.mjs";
import { unary } from "./unary.mjs";

const tell = (what) => console.log(JSON.stringify(what));

const { values } = parseArgs({
  options: { address: { type: "string" }, protos: { type: "string" }, evse: { type: "string" }, controller: { type: "string" }, rules: { type: "string" } },
});

async function talk() {
  const api = connect(values.address, values.protos);
  const incarnation = () => String(1n + randomBytes(8).readBigUInt64BE() % (2n ** 63n - 1n));
  try {
    await Promise.all([
      unary({ api, incarnation: incarnation(), evse: values.evse, tell }),
      stream({ api, incarnation: incarnation(), controller: values.controller, tell }),
    ]);
  } finally {
    api.close();
  }
}

try {
  if (values.rules) for (const scene of JSON.parse(readFileSync(values.rules, "utf8"))) tell(refusal(scene));
  else await talk();
} catch (fault) {
  console.error(String(fault));
  process.exitCode = 1;
}
