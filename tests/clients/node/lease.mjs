// The controller's half of the lease rules, as common.proto states them: which grants count, and for how long.
import { readFileSync } from "node:fs";

// Seconds since boot, suspend included: the clock that stamps are written in.
export const boottime = () => Number(readFileSync("/proc/uptime", "utf8").split(" ")[0]);

// A reading later than every one before, as stamps must be: /proc/uptime moves in steps of 10 ms.
let before = 0;
export const later = () => (before = Math.max(boottime(), before + 1e-6));

export const seconds = (duration) => Number(duration.seconds) + duration.nanos / 1e9;

const newer = (a, b) =>
  BigInt(a.epoch) > BigInt(b.epoch) || (BigInt(a.epoch) === BigInt(b.epoch) && BigInt(a.seq) > BigInt(b.seq));

// Why this message (Grant, Grants or RenewAll) must not be applied, or null.
// `last` is the (epoch, seq) last accepted for the same EVSE, `plug` when its plug last changed or a car was found there.
export function refusal({ incarnation, last, plug = 0, now, message }) {
  const { echo } = message;
  if (!echo || String(echo.incarnation) !== String(incarnation)) return "foreign incarnation";
  const age = Math.max(now, before) - echo.boottime_s;
  if (!(age >= 0 && age <= seconds(message.ttl))) return "old echo";
  if (echo.boottime_s < plug) return "meant for another car";
  if (!newer(message, last)) return "not newer";
  return null;
}
