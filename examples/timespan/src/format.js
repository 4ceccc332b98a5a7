import { UNITS } from "./units.js";

/** A span of seconds in its two largest units; parts of a second are rounded. */
export function format(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) throw new RangeError(`no span of time: ${seconds}`);
  const parts = [];
  let rest = seconds;
  for (const [unit, length] of UNITS) {
    const count = unit === "s" ? Math.round(rest) : Math.floor(rest / length);
    rest -= count * length;
    if (count > 0) parts.push(`${count}${unit}`);
  }
  return parts.slice(0, 2).join(" ") || "0s";
}
