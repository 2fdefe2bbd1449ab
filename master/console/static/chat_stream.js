/* The stream of one chat: sends it, reads its events, and goes on where a lost line was cut. */
export const CHAT = "/console/playground";
const TRIES = 5;
const RETRY_SECONDS = 1;

const wait = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
const csrf = () => document.querySelector('meta[name="csrf"]').content;

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const frames = (rest + value).split("\n\n");
    rest = frames.pop();
    for (const frame of frames) {
      const name = /^event: (.*)$/m.exec(frame);
      const found = /^data: (.*)$/m.exec(frame);
      if (name && found) yield [name[1], JSON.parse(found[1])];
    }
  }
}

export const SIGNED_OUT = { message: "The session has ended.", remedy: "Load this page again to sign in.", code: "signed_out" };

async function refusal(response) {
  if (response.status === 401) return SIGNED_OUT;
  try {
    return await response.json();
  } catch {
    return { message: `The server answered ${response.status}.`, remedy: "Load this page again.", code: String(response.status) };
  }
}

export const headers = () => ({ "X-CSRF-Token": csrf(), "HX-Request": "true", Accept: "text/event-stream" });

/* Until the turn is over; `signIn` is told where the session has ended. */
export async function begin(turn, body, signIn) {
  const response = await fetch(`${CHAT}/chat`, {
    method: "POST",
    headers: { ...headers(), "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal: turn.abort.signal,
  });
  if (response.status === 401) return signIn();
  if (!response.ok) return turn.fail(await refusal(response));
  await follow(turn, response);
}

async function follow(turn, response) {
  for (let tries = 0; ; tries += 1) {
    try {
      for await (const [name, found] of events(response)) {
        tries = 0;
        turn.take(name, found);
      }
    } catch (error) {
      if (turn.abort.signal.aborted) return;
    }
    if (turn.over) return;
    if (!turn.request || tries >= TRIES) return turn.lose();
    turn.cut = true;
    turn.status("The connection was lost; looking for the rest…");
    await wait(RETRY_SECONDS * 2 ** tries);
    response = await again(turn);
    if (!response) return;
  }
}

/* The stream from where it was; nothing if that cannot be. */
async function again(turn) {
  for (let tries = 0; tries < TRIES; tries += 1) {
    try {
      const found = await fetch(`${CHAT}/${turn.request}/events?after=${turn.place}&thought=${turn.thought}`, { headers: headers(), signal: turn.abort.signal });
      if (found.ok) return found;
      if (found.status < 500) { turn.fail(await refusal(found)); return null; }
    } catch (error) {
      if (turn.abort.signal.aborted) return null;
    }
    await wait(RETRY_SECONDS * 2 ** tries);
  }
  turn.lose();
  return null;
}
