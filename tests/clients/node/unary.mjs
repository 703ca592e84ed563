// A charger that asks by single calls: each request acks the grant before.
import { call, sleep } from "./api.mjs";
import { boottime, later, refusal } from "./lease.mjs";

export async function unary({ api, incarnation, evse, tell }) {
  const state = { last: { epoch: "0", seq: "0" }, ack: null };
  const { session } = await call(api.session, "StartSession", {
    request_id: `start-${incarnation}`,
    evse_id: evse,
    demand: { requested_energy_kwh: 12, max_current_a: 24 },
  });
  tell({ event: "session", way: "unary", evse, session_id: session.session_id });

  const ask = async () => {
    const answer = await call(api.controller, "RequestSetpoint", {
      evse_id: evse,
      stamp: { incarnation, boottime_s: later() },
      plugged: true,
      plug_boottime_s: 0,
      ack: state.ack,
    });
    const { grant } = answer;
    const why = refusal({ incarnation, last: state.last, now: boottime(), message: grant });
    if (why) throw new Error(`refused a grant of powerd: ${why}`);
    const acked = state.ack && Number(state.ack.seq);
    state.last = { epoch: grant.epoch, seq: grant.seq };
    state.ack = { ...state.last, applied_ceiling: grant.ceiling_a }; // the charger takes it here
    tell({ event: "grant", way: "unary", evse, seq: Number(grant.seq), ceiling: grant.ceiling_a, acked, reason: answer.reason });
    return grant.ceiling_a;
  };

  let ceiling = await ask();
  for (let tries = 0; ceiling !== 24 && tries < 20; tries += 1) ceiling = await ask();
  if (ceiling !== 24) throw new Error(`24 A did not come, only ${ceiling}`);
  await ask();
  await call(api.session, "UpdateSession", { session_id: session.session_id, demand: { max_current_a: 16 } });
  for (let tries = 0; ceiling !== 16 && tries < 5; tries += 1) ceiling = await ask();
  if (ceiling !== 16) throw new Error(`16 A did not come, only ${ceiling}`);
  const worst = async () => (await call(api.site, "ExplainCeiling", { evse_id: evse })).worst;
  tell({ event: "worst", way: "unary", evse, acked: false, worst: await worst() });
  await ask(); // acks the 16 A
  let most = await worst();
  for (let tries = 0; most > 16 && tries < 15; tries += 1) {
    await sleep(1);
    most = await worst();
  }
  tell({ event: "worst", way: "unary", evse, acked: true, worst: most });
}
