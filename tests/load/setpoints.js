// Load on the gRPC door, by k6: single calls at a fixed rate, and many streams that ask for all their posts every tick.
//
//   k6 run --no-usage-report -e ADDRESS=127.0.0.1:7433 -e PROTOS=../../protos -e POSTS=posts.json setpoints.js
//
// POSTS is a JSON file: {"streams": [{"controller_id": ..., "evse_ids": [...]}, ...], "calls": [evse id, ...]}.
// Ends with 0 if every check held and the thresholds were met, with 99 if not. TICK [s] is what the daemon promised,
// SECONDS how long the full load lasts after RAMP seconds, RATE the calls a second, SLACK_MS what may come on top of a tick.
import { check, sleep } from "k6";
import { SharedArray } from "k6/data";
import exec from "k6/execution";
import { Counter, Trend } from "k6/metrics";
import { Client, StatusOK, Stream } from "k6/net/grpc";
import { setTimeout } from "k6/timers";

const TICK_S = Number(__ENV.TICK || 1);
const SECONDS = Number(__ENV.SECONDS || 30);
const RATE = Number(__ENV.RATE || 200);
const LATEST_MS = TICK_S * 1000 + Number(__ENV.SLACK_MS || 200);
const TIMEOUT = `${5 * TICK_S}s`;
const CONNECT = "20s"; // hundreds come at once, and k6 does its own work meanwhile
// A call takes up to a tick and a bit; the rest is for hiccups, so that the rate is kept.
const CALLERS = Math.ceil(RATE * (TICK_S + 0.5));
// Everybody connects, and says hello, spread over this time before the full load begins.
const RAMP_S = Number(__ENV.RAMP || 10);
// The last hello may come at the end of the ramp; it is answered by the tick after the one under way.
const TICKS = Math.floor((SECONDS - 2 * TICK_S) / TICK_S);

const streams = new SharedArray("streams", () => JSON.parse(open(__ENV.POSTS)).streams);
const posts = new SharedArray("calls", () => JSON.parse(open(__ENV.POSTS)).calls);

const gap = new Trend("gap_between_grants", true);
const first = new Trend("time_to_first_grants", true);
const granted = new Counter("posts_granted_by_stream");
const answered = new Counter("calls_answered");

export const options = {
  summaryTrendStats: ["avg", "med", "p(95)", "p(99)", "max"],
  scenarios: Object.assign(
    {},
    posts.length > 0 && {
      calls: {
        executor: "ramping-arrival-rate",
        exec: "calls",
        startRate: 0,
        timeUnit: "1s",
        stages: [
          { target: RATE, duration: `${RAMP_S}s` },
          { target: RATE, duration: `${SECONDS}s` },
        ],
        preAllocatedVUs: CALLERS,
        gracefulStop: "10s",
      },
    },
    streams.length > 0 && {
      streams: {
        executor: "per-vu-iterations",
        exec: "stream",
        vus: streams.length,
        iterations: 1,
        maxDuration: `${RAMP_S + SECONDS + 30}s`,
        gracefulStop: "10s",
      },
    },
  ),
  thresholds: Object.assign(
    { checks: ["rate==1"] },
    posts.length > 0 && {
      "grpc_req_duration{scenario:calls}": [`p(95)<=${LATEST_MS}`],
      calls_answered: [`count>=${RATE * SECONDS}`],
    },
    streams.length > 0 && {
      gap_between_grants: [`p(95)<=${LATEST_MS}`],
      posts_granted_by_stream: [`count>=${TICKS * streams.reduce((sum, it) => sum + it.evse_ids.length, 0)}`],
    },
  ),
};

const client = new Client();
client.load([__ENV.PROTOS], "powerd/v1/controller_service.proto");

const now = () => Date.now() / 1000;
const seconds = (duration) => Number(duration.slice(0, -1));
// One number for each VU; a controller process has one incarnation.
const incarnation = () => String(exec.vu.idInTest * 1e6 + Math.floor(Math.random() * 1e6) + 1);

// What the rules of leases ask of a Grant, Grants or RenewAll.
function acceptable(message, me, last) {
  const age = now() - message.echo.boottimeS;
  return (
    message.echo.incarnation === me &&
    age >= 0 &&
    age <= seconds(message.ttl) &&
    (Number(message.epoch) > last.epoch || (Number(message.epoch) === last.epoch && Number(message.seq) > last.seq))
  );
}

const place = (message) => ({ epoch: Number(message.epoch), seq: Number(message.seq) });

// What this VU knows as a charger; a caller asks for its posts in turn, and acks what it got for that post before.
let me = null;
let mine = [];
let turn = 0;

export function calls() {
  if (me === null) {
    client.connect(__ENV.ADDRESS, { plaintext: true, timeout: CONNECT });
    me = incarnation();
    // k6 numbers the VUs of both scenarios together; no two of them may speak for one post.
    const everybody = CALLERS + streams.length;
    mine = posts.filter((_, i) => i % everybody === exec.vu.idInTest - 1).map((evse_id) => ({ evse_id, last: { epoch: 0, seq: 0 }, ack: null }));
  }
  const post = mine[turn % mine.length];
  turn += 1;
  const answer = client.invoke(
    "powerd.v1.ControllerService/RequestSetpoint",
    { evse_id: post.evse_id, plugged: true, stamp: { incarnation: me, boottime_s: now() }, ack: post.ack },
    { timeout: TIMEOUT },
  );
  const grant = answer.status === StatusOK ? answer.message.grant : null;
  check(grant, {
    "the call is answered": (it) => it !== null,
    "the grant can be accepted": (it) => it !== null && acceptable(it, me, post.last),
    "the answer says when to come back": (it) => it !== null && seconds(answer.message.nextRequestIn) < seconds(it.ttl),
  });
  if (grant === null) {
    console.warn(`${post.evse_id}: status ${answer.status} ${answer.error && answer.error.message}`);
    return;
  }
  answered.add(1);
  post.last = place(grant);
  post.ack = Object.assign({ applied_ceiling: grant.ceilingA }, post.last);
}

export function stream() {
  const { controller_id, evse_ids } = streams[exec.scenario.iterationInTest % streams.length];
  const id = incarnation();
  const all = evse_ids.map((_, index) => index);
  const counts = evse_ids.map(() => 0);
  const last = { epoch: 0, seq: 0 };
  const round = new Set();
  let sent = null;
  let latest = null;
  let number = 0;
  let refused = 0;
  let ended = null;
  let done = false;

  const pause = RAMP_S * Math.random();
  sleep(pause);
  client.connect(__ENV.ADDRESS, { plaintext: true, timeout: CONNECT });
  const connection = new Stream(client, "powerd.v1.ControllerService/Connect", null);
  const stamp = () => ({ incarnation: id, boottime_s: now() });
  const say = (message) => connection.write(message);

  connection.on("data", (response) => {
    const { grants } = response;
    if (!grants) return;
    const at = Date.now();
    if (latest === null) first.add(at - sent);
    if (!acceptable(grants, id, last)) refused += 1;
    Object.assign(last, place(grants));
    grants.index.forEach((index) => (counts[index] += 1));
    granted.add(grants.index.length);
    // Decreases go out before raises, so one tick may come as two messages.
    grants.index.forEach((index) => round.add(index));
    if (round.size === evse_ids.length) {
      if (latest !== null) gap.add(at - latest);
      latest = at;
      round.clear();
    }
    if (done) return;
    number += 1;
    const applied = [{ epoch: grants.epoch, seq: grants.seq, index: grants.index, ceiling: grants.ceiling }];
    say({ report: { stamp: stamp(), report_number: number, applied, want_index: all } });
  });
  connection.on("error", (fault) => {
    if (!done) ended = fault;
  });
  connection.on("end", () => {
    if (!done) ended = "ended";
  });

  sent = Date.now();
  number += 1;
  const evses = evse_ids.map((evse_id) => ({ evse_id, plugged: true }));
  say({ hello: { controller_id, stamp: stamp(), evses, report_number: number } });

  setTimeout(
    () => {
      done = true;
      check(counts, {
        "the stream stays open": () => ended === null,
        "every message on it can be accepted": () => refused === 0,
        "each post is granted every tick": (them) => Math.min(...them) >= TICKS,
      });
      connection.end();
    },
    (RAMP_S - pause + SECONDS) * 1000,
  );
}
