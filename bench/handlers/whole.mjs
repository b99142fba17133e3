/** Returns its event, whatever its size. */
export function handler(event) {
  return event;
}
