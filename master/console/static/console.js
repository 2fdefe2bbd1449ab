/* What the console's pages need of script; without it they are plain links and forms. */
(() => {
  "use strict";
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const kept = () => {
    try { return localStorage.getItem("millrace-theme"); } catch { return null; }
  };
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  // At once, before anything is painted.
  root.dataset.script = "on";
  if (["light", "dark"].includes(kept())) root.dataset.theme = kept();

  const showTheme = () => {
    document.querySelector(".theme-button")?.setAttribute("aria-pressed", String(isDark()));
  };
  const changeTheme = () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("millrace-theme", root.dataset.theme); } catch { /* a private window */ }
    showTheme();
  };

  // What is long is closed where there is little room; open where it has no button to open it.
  const narrow = window.matchMedia("(max-width: 40rem)");
  const fold = () => {
    document.querySelectorAll("details[data-folds]").forEach((each) => { each.open = !narrow.matches; });
  };

  const toggleMenu = (button, open) => {
    button.setAttribute("aria-expanded", String(open));
    document.getElementById("nav")?.classList.toggle("open", open);
  };

  const copy = async (button) => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent.trim());
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
    }
  };

  const token = () => document.querySelector('meta[name="csrf"]')?.content ?? "";
  const showStale = (stale) => {
    const note = document.getElementById("stale");
    if (note && note.hidden === stale) note.hidden = !stale;
  };

  // There is nothing to follow any more: no connection is tried again.
  const stopFollowing = (connection, why) => {
    if (connection) connection.config.reconnect = false;
    const note = document.getElementById("gone");
    if (!note) return;
    if (why) note.querySelector("span").textContent = why;
    note.hidden = false;
    showStale(false);
  };

  // For scripts of single pages: a post from here. Without a session it is answered by 401.
  window.millrace = {
    token,
    post: (url, fields) => fetch(url, {
      method: "POST",
      headers: { "X-CSRF-Token": token(), "HX-Request": "true" },
      body: new URLSearchParams(fields),
    }),
  };

  document.addEventListener("DOMContentLoaded", () => {
    showTheme();
    dark.addEventListener("change", showTheme);
    fold();
    narrow.addEventListener("change", fold);
    document.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      if (button.matches(".theme-button")) changeTheme();
      if (button.matches(".menu-button")) toggleMenu(button, button.getAttribute("aria-expanded") !== "true");
      if (button.dataset.copy) copy(button);
    });
    document.addEventListener("keydown", (event) => {
      const menu = document.querySelector('.menu-button[aria-expanded="true"]');
      if (event.key !== "Escape" || !menu) return;
      toggleMenu(menu, false);
      menu.focus();
    });
    document.addEventListener("submit", (event) => {
      const question = event.submitter?.dataset.ask ?? event.target.dataset.ask;
      if (question && !window.confirm(question)) {
        event.preventDefault();
        event.stopImmediatePropagation();
      }
    }, true);
    document.addEventListener("htmx:config:request", (event) => {
      event.detail.ctx.request.headers["X-CSRF-Token"] = token();
    });
    document.addEventListener("htmx:sse:error", (event) => {
      // The session has ended: the page asks to sign in, and comes back.
      if (event.detail.status === 401) location.reload();
      if (event.detail.status === 404) stopFollowing(event.detail.connection);
      else showStale(true);
    });
    document.addEventListener("htmx:sse:after:message", (event) => {
      const { connection, message } = event.detail;
      if (message.event === "gone") stopFollowing(connection, message.data);
      else showStale(message.event === "stale");
    });
    document.addEventListener("ended", () => location.reload());
  });
})();
