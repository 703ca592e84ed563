// A controller with several posts: one stream, hello first, then reports up and grants down.
import { call, sleep } from "./api.mjs";
import { boottime, later, refusal, seconds } from "./lease.mjs";

const NEVER = { epoch: "0", seq: "0" };

class Controller {
  constructor({ api, id, evses, incarnation, tell }) {
    Object.assign(this, { api, id, incarnation, tell, number: 0, count: 0, holdAcks: false, held: [] });
    this.posts = evses.map((name) => ({ name, plugged: false, ceiling: 0, last: NEVER, sent: NEVER }));
    this.seen = { ceilings: [], renewals: 0 };
    this.failure = null;
  }

  stamp() {
    return { incarnation: this.incarnation, boottime_s: later() };
  }

  open(plugged) {
    this.posts[plugged].plugged = true;
    this.call = this.api.controller.Connect();
    this.call.on("data", (response) => {
      try {
        this.take(response);
      } catch (fault) {
        this.failure ??= fault; // here every message is in time and ours: a refused one is powerd's fault
      }
    });
    this.call.on("error", (fault) => (this.failure ??= fault));
    this.call.on("end", () => (this.failure ??= new Error("powerd ended the stream")));
    this.call.write({
      hello: {
        controller_id: this.id,
        stamp: this.stamp(),
        highest_epoch: 0,
        evses: this.posts.map((post) => ({ evse_id: post.name, plugged: post.plugged })),
        report_number: (this.number += 1),
      },
    });
  }

  report(columns = {}) {
    this.call.write({ report: { stamp: this.stamp(), report_number: (this.number += 1), ...columns } });
  }

  take(response) {
    if (response.welcome) {
      const every = seconds(response.welcome.report_within);
      this.tell({ event: "welcome", controller: this.id, epoch: Number(response.welcome.epoch), ttl_s: seconds(response.welcome.ttl) });
      this.heartbeat = setInterval(() => this.report(), every * 500);
      return;
    }
    const counted = this.count;
    this.count += 1;
    if (response.grants) this.grants(response.grants);
    else if (response.renew_all) this.renewAll(response.renew_all, counted);
  }

  grants(message) {
    const now = boottime();
    const applied = { epoch: message.epoch, seq: message.seq, index: [], ceiling: [] };
    message.index.forEach((index, i) => {
      const post = this.posts[index];
      post.sent = { epoch: message.epoch, seq: message.seq };
      const why = refusal({ incarnation: this.incarnation, last: post.last, now, message });
      if (why) throw new Error(`refused a grant of powerd: ${why}`);
      post.last = post.sent;
      post.ceiling = message.ceiling[i]; // the charger takes it here
      applied.index.push(index);
      applied.ceiling.push(message.ceiling[i]);
      if (post.plugged) this.seen.ceilings.push(message.ceiling[i]);
    });
    const [plugged] = this.posts.filter((post) => post.plugged);
    this.tell({ event: "grant", way: "stream", evse: plugged.name, seq: Number(message.seq), posts: message.index.length, ceiling: plugged.ceiling });
    if (this.holdAcks) this.held.push(applied);
    else this.report({ applied: [applied] });
  }

  renewAll(message, counted) {
    if (Number(message.count) !== counted) {
      this.count = Number(message.count) + 1;
      this.report({ want_index: this.posts.map((_, index) => index) });
      return;
    }
    const sent = { epoch: message.epoch, seq: message.seq };
    for (const post of this.posts) {
      const why = refusal({ incarnation: this.incarnation, last: post.last, now: boottime(), message });
      if (why) throw new Error(`refused a renewal of powerd: ${why}`);
      if (post.last === post.sent) post.last = sent;
      post.sent = sent;
    }
    this.seen.renewals += 1;
    this.tell({ event: "renewal", way: "stream", seq: Number(message.seq), count: Number(message.count) });
    if (!this.holdAcks) this.report({ applied: [{ epoch: message.epoch, seq: message.seq, all: true }] });
  }

  releaseAcks() {
    this.holdAcks = false;
    this.report({ applied: this.held.splice(0) });
  }

  async until(condition, within, what) {
    for (const end = boottime() + within; boottime() < end; await sleep(0.1)) {
      if (this.failure) throw this.failure;
      if (condition()) return;
    }
    throw new Error(`${what} did not come within ${within} s`);
  }

  close() {
    clearInterval(this.heartbeat);
    this.failure = new Error("closed by us");
    this.call.cancel();
  }
}

export async function stream({ api, incarnation, controller: id, tell }) {
  const { evses } = await call(api.site, "GetSite", {});
  const own = evses.filter((evse) => evse.controller_id === id).map((evse) => evse.evse_id);
  const evse = own[0];
  const { session } = await call(api.session, "StartSession", { evse_id: evse, demand: { max_current_a: 24 } });
  tell({ event: "session", way: "stream", evse, session_id: session.session_id });

  const controller = new Controller({ api, id, evses: own, incarnation, tell });
  const worst = async () => (await call(api.site, "ExplainCeiling", { evse_id: evse })).worst;
  try {
    controller.open(0);
    await controller.until(() => controller.posts[0].ceiling === 24, 20, "24 A");
    await controller.until(() => controller.seen.renewals > 0, 60, "a renewal");
    controller.holdAcks = true;
    await call(api.session, "UpdateSession", { session_id: session.session_id, demand: { max_current_a: 8 } });
    await controller.until(() => controller.posts[0].ceiling === 8, 10, "8 A");
    await sleep(2);
    tell({ event: "worst", way: "stream", evse, acked: false, worst: await worst() });
    controller.releaseAcks();
    let most = await worst();
    for (let tries = 0; most > 8 && tries < 15; tries += 1) {
      await sleep(1);
      most = await worst();
    }
    tell({ event: "worst", way: "stream", evse, acked: true, worst: most });
  } finally {
    controller.close();
  }
}
