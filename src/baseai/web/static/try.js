// Sends a request to a service from its page and shows what comes back as it comes. Without this script the form is
// sent as forms are, and the browser shows the answer as text.
"use strict";
(() => {
  const spoken = (said) => {
    if (typeof said?.text_output === "string") return said.text_output;
    const choice = said?.choices?.[0];
    if (!choice) return null;
    const part = choice.message ?? choice.delta ?? choice;
    return part.content ?? part.text ?? "";
  };
  const shown = (text) => {
    let said;
    try { said = JSON.parse(text); } catch { return text; }
    return spoken(said) ?? JSON.stringify(said, null, 2);
  };

  // The words of a stream of events, each as soon as its line is whole.
  const streamed = async (body, say) => {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const data = line.startsWith("data:") ? line.slice(5).trim() : "";
        if (!data || data === "[DONE]") continue;
        const said = JSON.parse(data), words = spoken(said);
        say(words ?? (said.error ? said.error.message : ""));
      }
    }
  };

  for (const form of document.querySelectorAll("form[data-try]")) {
    const out = form.querySelector("output"), told = form.querySelector(".told"), button = form.querySelector(".send");
    const word = button.textContent;
    let going = null;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (going) { going.abort(); return; }
      going = new AbortController();
      button.textContent = form.dataset.stop;
      out.hidden = false;
      out.textContent = told.textContent = "";
      const began = performance.now();
      let first = null;
      const took = () => `${Math.round((performance.now() - began) * 10) / 10} ms`;
      const say = (text) => {
        if (text && first === null) first = took();
        out.textContent += text;
      };
      try {
        const accept = "streams" in form.dataset ? "text/event-stream, application/json" : "application/json";
        const answer = await fetch(form.action, {
          method: "POST", body: new URLSearchParams(new FormData(form)), headers: { accept }, signal: going.signal,
        });
        const kind = answer.headers.get("content-type") || "";
        if (kind.startsWith("text/event-stream")) await streamed(answer.body, say);
        else if (kind.startsWith("text/html")) say(`${answer.status} ${answer.statusText}`);
        else say(shown(await answer.text()));
        const facts = [String(answer.status), first && first !== took() ? `${first} → ${took()}` : took()];
        for (const name of ["cache-status", "x-baseai-replica", "x-baseai-version"]) {
          const value = answer.headers.get(name);
          if (value) facts.push(name === "x-baseai-version" ? `v${value}` : value);
        }
        told.textContent = facts.join(" · ");
      } catch (wrong) {
        if (wrong.name !== "AbortError") told.textContent = `${form.dataset.failed}: ${wrong.message}`;
        else told.textContent = took();
      } finally {
        going = null;
        button.textContent = word;
      }
    });
  }
})();
