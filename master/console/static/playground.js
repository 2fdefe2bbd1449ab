/* The playground's form: what was typed becomes a turn of the chat. */
import { SIGNED_OUT, begin } from "./chat_stream.js";
import { Turn } from "./turn.js";

const byId = (id) => document.getElementById(id);
const form = byId("compose");
const turns = byId("turns");
const announce = (text) => { byId("announcer").textContent = text; };

let said = [];      // the chat so far, as messages
let current = null; // the turn that is being answered

const number = (id) => (byId(id).value === "" ? null : Number(byId(id).value));

/* What was typed, over the page that asks to sign in. */
const DRAFT = "millrace-draft";
const TYPED = ["model", "question", "system", "collection", "temperature", "max_tokens"];

function signIn(turn) {
  const typed = Object.fromEntries(TYPED.map((id) => [id, byId(id).value]));
  typed.question ||= turn.question;
  turn.fail(SIGNED_OUT);
  try {
    sessionStorage.setItem(DRAFT, JSON.stringify(typed));
  } catch {
    return; // a private window: what was typed stays here, for whoever signs in elsewhere
  }
  location.reload();
}

function restore() {
  let kept = null;
  try {
    kept = JSON.parse(sessionStorage.getItem(DRAFT));
    sessionStorage.removeItem(DRAFT);
  } catch { /* a private window */ }
  for (const [id, value] of Object.entries(kept ?? {})) {
    const field = TYPED.includes(id) ? byId(id) : {};
    const before = field.value;
    field.value = value;
    if (field.value !== value) field.value = before; // a model that is gone
  }
}

function showBusy(busy) {
  turns.setAttribute("aria-busy", String(busy));
  byId("send").disabled = busy;
  byId("stop").hidden = !busy;
}

async function send() {
  const question = byId("question").value;
  if (current || !question.trim()) return;
  const turn = current = new Turn(question, turns);
  const messages = [...said, { role: "user", content: question }];
  byId("question").value = "";
  showBusy(true);
  announce("Sent. The answer is being written.");
  turn.element.scrollIntoView({ block: "nearest" });
  try {
    await begin(turn, {
      model: byId("model").value,
      messages,
      system: byId("system").value,
      collection: byId("collection").value,
      temperature: number("temperature"),
      max_tokens: number("max_tokens"),
    }, () => signIn(turn));
  } catch (error) {
    if (!turn.over) turn.lose();
  }
  if (!turn.request && turn.element.isConnected) byId("question").value ||= question; // to send it again
  if (turn.answer && turn.element.isConnected) said = [...messages, { role: "assistant", content: turn.answer }];
  current = null;
  showBusy(false);
  announce(turn.answer ? "The answer is complete." : "There is no answer.");
}

restore();
form.addEventListener("submit", (event) => { event.preventDefault(); send(); });
byId("stop").addEventListener("click", () => current?.stop());
byId("new-chat").addEventListener("click", () => {
  if (current) current.stop();
  said = [];
  turns.replaceChildren();
  byId("question").focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && form.contains(event.target)) { event.preventDefault(); send(); }
  if (event.key === "Escape" && current) current.stop();
});
