/* Keeps a page fresh that says where from: `[data-live]` names a websocket, `data-poll` the same HTML for
   when the socket is down. What arrives is morphed into the element that has its id, so that nothing the
   viewer has opened, typed or focused is lost. Timers tick here; actions are sent from here. */
"use strict";

(() => {
  const state = document.querySelector("[data-live]");
  if (!state) return;
  const word = state.querySelector("[data-live-word]");
  const result = document.querySelector("[data-live-result]");
  const POLL_MS = 5000;
  const QUIET_MS = 12000; // the server speaks every five seconds
  const RETRY_MS = [1000, 2000, 4000, 8000, 15000];
  let socket = null;
  let heardAt = 0;
  let failures = 0;
  let lead = 0; // the server's clock before ours
  let over = false;

  const say = (now, words) => {
    if (state.dataset.state === now) return;
    state.dataset.state = now;
    word.textContent = words;
  };

  // What arrives

  const inUse = (element) =>
    element.matches("details[data-keep][open]") ||
    element.querySelector("details[data-keep][open]") !== null;

  function morph(old, fresh) {
    if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE || old.matches("details[data-keep][open]")) return;
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const named = new Map([...fresh.children].filter((child) => child.id).map((child) => [child.id, child]));
    // First whatever is gone: then what stays need not be moved, and keeps its focus.
    for (const child of [...old.children]) {
      if (!child.id || named.has(child.id)) continue;
      if (inUse(child)) leaveBehind(child);
      else child.remove();
    }
    const mine = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
    let at = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      while (at && at.nodeType === Node.ELEMENT_NODE && "over" in at.dataset) at = at.nextSibling;
      const known = next.id ? mine.get(next.id) : null;
      if (known && known.nodeName === next.nodeName) {
        if (known === at) at = at.nextSibling;
        else old.insertBefore(known, at);
        morph(known, next);
      } else if (at && !next.id && !at.id && at.nodeType === next.nodeType && at.nodeName === next.nodeName) {
        const same = at;
        at = at.nextSibling;
        morph(same, next);
      } else {
        old.insertBefore(next, at);
      }
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      if (gone.nodeType !== Node.ELEMENT_NODE || !("over" in gone.dataset)) gone.remove();
    }
  }

  /* The call is over while somebody is about to act on it: it stays until they have closed the form. */
  function leaveBehind(row) {
    row.dataset.over = "";
    row.querySelectorAll("[data-since], [data-silent-since]").forEach((each) => {
      delete each.dataset.since;
      delete each.dataset.silentSince;
    });
    const floor = row.querySelector(".live-floor");
    if (floor) floor.textContent = "the call is over";
  }

  function show(html) {
    const parsed = new DOMParser().parseFromString(html, "text/html");
    for (const fresh of [...parsed.body.children]) {
      const old = fresh.id && document.getElementById(fresh.id);
      if (!old) continue;
      if (fresh.dataset.now) lead = Number(fresh.dataset.now) * 1000 - Date.now();
      morph(old, document.importNode(fresh, true));
    }
    tick();
  }

  // Time

  const clock = (seconds) => {
    const parts = [Math.floor(seconds / 60) % 60, seconds % 60].map((part) => String(part).padStart(2, "0"));
    const hours = Math.floor(seconds / 3600);
    return hours ? `${hours}:${parts[0]}:${parts[1]}` : `${Number(parts[0])}:${parts[1]}`;
  };

  function tick() {
    const now = Date.now() + lead;
    const since = (name, element) => Math.max(0, Math.floor(now / 1000 - Number(element.dataset[name])));
    document.querySelectorAll("[data-since]").forEach((each) => {
      each.textContent = clock(since("since", each));
    });
    document.querySelectorAll("[data-silent-since]").forEach((each) => {
      const seconds = since("silentSince", each);
      each.hidden = seconds < 5;
      each.textContent = `⚠ silent ${seconds} s`;
    });
  }

  // The socket, and what stands in for it

  function connect() {
    if (over || socket || document.hidden) return;
    const url = new URL(state.dataset.live, window.location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const mine = new WebSocket(url);
    socket = mine;
    heardAt = Date.now();
    mine.onmessage = (event) => {
      if (socket !== mine) return;
      heardAt = Date.now();
      failures = 0;
      show(event.data);
      say("live", "live");
    };
    mine.onclose = (event) => {
      if (socket === mine) lost(event.code);
    };
  }

  function lost(code) {
    const dropped = socket;
    socket = null;
    dropped.onclose = dropped.onmessage = null;
    dropped.close();
    if (code === 4401) return leave();
    if (document.hidden) return;
    poll();
    const pause = RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)];
    window.setTimeout(connect, pause * (0.75 + Math.random() / 2));
  }

  async function poll() {
    if (over || document.hidden) return;
    try {
      const answer = await fetch(state.dataset.poll, { signal: AbortSignal.timeout(POLL_MS) });
      if (answer.redirected || answer.status === 403 || answer.status === 404) return leave();
      if (!answer.ok) throw new Error(answer.status);
      const html = await answer.text();
      if (state.dataset.state === "live" && socket) return;
      show(html);
      say("polling", "every 5 s");
    } catch {
      say("away", "not connected");
    }
  }

  function leave() {
    over = true;
    say("over", "no longer allowed here, or signed out: reload the page");
  }

  let polledAt = Date.now();
  window.setInterval(() => {
    tick();
    if (over || document.hidden) return;
    if (socket && Date.now() - heardAt > QUIET_MS) lost(0);
    if (state.dataset.state !== "live" || !socket) {
      if (Date.now() - polledAt >= POLL_MS) {
        polledAt = Date.now();
        poll();
      }
    }
  }, 1000);

  // A page that nobody sees needs no news.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) connect();
    else if (socket) lost(0);
  });

  // Actions

  document.addEventListener("submit", async (event) => {
    const form = event.target.closest("form[data-live-action]");
    if (!form) return;
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    result.textContent = "…";
    try {
      const answer = await fetch(form.action, {
        method: "POST",
        body: new URLSearchParams(new FormData(form)),
        headers: { "X-CSRFToken": state.dataset.csrf, "HX-Request": "true" },
        signal: AbortSignal.timeout(15000),
      });
      if (answer.redirected || ![200, 409, 502].includes(answer.status)) {
        result.textContent = "✗ You may not do this, or you were signed out. Reload the page.";
      } else {
        result.innerHTML = await answer.text();
      }
      if (answer.ok && !answer.redirected) {
        form.reset();
        form.closest("details[data-keep]").open = false;
      }
    } catch {
      result.textContent = "✗ The server did not answer. Look at the call before you try again.";
    }
    button.disabled = false;
  });

  connect();
})();
