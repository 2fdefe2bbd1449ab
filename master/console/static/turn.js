/* One question and its answer, as they are shown while the answer comes.
   What a model says goes into textContent, and so is never HTML; what replaces it at the end is
   made by the server, which lets no HTML of an answer through. */
import { CHAT, headers } from "./chat_stream.js";

/* A duration in milliseconds, as the other pages write it. */
const length = (took) => (took < 999.5 ? `${took.toFixed(0)} ms` : `${(took / 1000).toFixed(1)} s`);

const CUT = { message: "The connection was lost, and the request was cancelled with it.", remedy: "Send it again if you want an answer.", code: "connection_lost" };

export class Turn {
  /* At the end of `turns`, an element. */
  constructor(question, turns) {
    this.element = document.getElementById("turn").content.cloneNode(true).firstElementChild;
    this.question = question;
    this.part(".you").textContent = question;
    this.abort = new AbortController();
    this.began = performance.now();
    this.first = null;
    this.request = null;
    this.place = 0;
    this.thought = 0;
    this.answer = "";
    this.over = false;
    this.cut = false;     // the line was, at least once
    this.stopped = false; // by whoever looks
    this.steps = new Map();
    this.element.querySelectorAll("[data-rating]").forEach((button) => {
      button.addEventListener("click", () => this.rate(button));
    });
    turns.append(this.element);
    this.status("Sent");
  }

  part(selector) { return this.element.querySelector(selector); }

  status(text) { this.part(".status").textContent = text; }

  take(name, found) {
    const takers = {
      accepted: () => this.accept(found),
      plan: () => this.plan(found),
      part: () => this.grow(found),
      text: () => this.say(found),
      reasoning: () => this.think(found),
      status: () => this.status(found.description),
      interrupted: () => this.status(found.message),
      failed: () => this.fail(found),
      end: () => this.end(found),
    };
    takers[name]?.();
  }

  accept(found) {
    this.request = found.request;
    this.status(found.ahead ? `Waiting behind ${found.ahead} others` : "Waiting for the first word");
  }

  plan(found) {
    const list = this.part(".steps");
    const count = found.steps.length;
    this.part(".plan").hidden = false;
    this.part(".plan summary").textContent = `${found.strategy}: ${count} step${count === 1 ? "" : "s"}${found.reason ? `. ${found.reason}` : ""}`;
    for (const step of found.steps) {
      if (this.steps.has(step.key)) continue;
      const element = document.getElementById("step").content.cloneNode(true).firstElementChild;
      element.querySelector(".name").textContent = step.title;
      const after = step.after.length ? `, after ${step.after.join(", ")}` : "";
      element.querySelector(".muted").textContent = `${step.model}${after}`;
      this.steps.set(step.key, element);
      list.append(element);
    }
    this.cite(found.sources);
  }

  cite(sources) {
    const list = this.part(".sources");
    list.hidden = !sources.length;
    list.replaceChildren(...sources.map((source) => {
      const line = document.createElement("li");
      line.value = source.number;
      line.textContent = source.label;
      return line;
    }));
  }

  grow(found) {
    const element = this.steps.get(found.step);
    if (!element) return;
    if (found.state) {
      const badge = element.querySelector(".badge");
      badge.className = `badge state-${found.state}`;
      badge.textContent = found.attempt > 1 ? `${found.state}, try ${found.attempt}` : found.state;
      // What is being written is seen; a single step is the answer itself.
      element.querySelector("details").open = this.steps.size > 1 && found.state === "running";
    }
    if (found.text !== undefined) {
      const shown = element.querySelector("pre");
      if (found.anew) shown.textContent = found.text;
      else shown.append(found.text);
      shown.scrollTop = shown.scrollHeight;
    }
  }

  say(found) {
    if (this.first === null) {
      this.first = performance.now();
      this.status("Answering");
    }
    this.place = found.at;
    this.answer += found.text;
    this.part(".reply").append(found.text);
  }

  think(found) {
    this.thought = found.thought;
    this.part(".thoughts").hidden = false;
    this.part(".thoughts pre").append(found.text);
  }

  end(found) {
    this.over = true;
    this.status(found.state);
    const withTheLine = this.cut && !this.stopped && found.state === "cancelled";
    if (withTheLine) this.complain(CUT);
    else if (found.error) this.complain(found.error);
    this.format();
    this.bill();
  }

  /* As it was meant to look. Where that fails, the text stays as it came. */
  async format() {
    const answer = await fetch(`/console/requests/${this.request}/answer`, { headers: headers() }).catch(() => null);
    if (answer?.status !== 200) return;
    const reply = this.part(".reply");
    reply.innerHTML = await answer.text();
    reply.classList.add("formatted");
  }

  fail(error) {
    this.over = true;
    this.status("");
    this.complain(error);
    if (this.request) this.bill();
  }

  lose() {
    const unheard = { message: "The connection was lost.", remedy: "Send it again.", code: "connection_lost" };
    const unsure = { ...CUT, message: "The connection was lost, and with it the request is cancelled, unless it had ended.", remedy: "Its page shows what became of it." };
    this.fail(this.request ? unsure : unheard);
  }

  complain(error) {
    const notice = this.part(".notice");
    notice.hidden = false;
    notice.textContent = `${error.message} ${error.remedy ?? ""} (${error.code})`;
  }

  async bill() {
    const took = length(performance.now() - this.began);
    const line = this.part(".bill");
    const link = document.createElement("a");
    link.href = `/console/requests/${this.request}`;
    link.textContent = "Look at the request";
    line.replaceChildren(link);
    line.hidden = false;
    this.part(".rating").hidden = false;
    const answer = await fetch(`${CHAT}/${this.request}/bill`, { headers: headers() }).catch(() => null);
    if (!answer?.ok) return;
    const found = await answer.json();
    const first = this.first === null ? "" : `, first text after ${length(this.first - this.began)}`;
    const cost = found.cost ? `, ${found.cost.toPrecision(2)} ${found.currency}` : "";
    line.append(` · ${found.tokens} tokens${first}, ${took} in all${cost}`);
  }

  async rate(button) {
    const answer = await window.millrace.post(`/console/requests/${this.request}/feedback`, { rating: button.dataset.rating }).catch(() => null);
    this.part(".rating span").textContent = answer?.ok ? "Thank you, it is noted." : "It could not be stored; try it on the request's page.";
    if (!answer?.ok) return;
    this.element.querySelectorAll("[data-rating]").forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
  }

  async stop() {
    this.stopped = true;
    this.status("Stopping");
    if (!this.request) { this.abort.abort(); this.fail({ message: "It was stopped before it was accepted.", code: "stopped" }); return; }
    const answer = await window.millrace.post(`/console/requests/${this.request}/cancel`, {}).catch(() => null);
    if (!answer?.ok) this.abort.abort(); // who leaves, cancels as well
  }
}
