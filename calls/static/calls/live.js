/* Keeps a page up to date. `[data-live]` names a websocket, `data-poll` a URL with the same HTML for when the
   socket is down. New HTML is morphed into the element with the same id, so that open menus, typed text and
   focus survive. Timers count here, and the forms of live actions are sent from here. */
"use strict";

(() => {
  const state = document.querySelector("[data-live]");
  if (!state) return;
  const label = state.querySelector("[data-live-word]");
  const result = document.querySelector("[data-live-result]");
  const POLL_MS = 5000;
  const QUIET_MS = 12000; // the server sends something every five seconds
  const RETRY_MS = [1000, 2000, 4000, 8000, 15000];
  let socket = null;
  let receivedAt = 0;
  let failures = 0;
  let clockOffset = 0; // server time minus local time, in ms
  let stopped = false;

  const setState = (name, text) => {
    if (state.dataset.state === name) return;
    state.dataset.state = name;
    label.textContent = text;
  };

  const title = document.title;
  const showCount = () => {
    const board = document.getElementById("live-board");
    const count = board ? Number(board.dataset.count) : 0;
    document.title = count ? `(${count}) ${title}` : title;
  };
  showCount();

  // Updates

  const inUse = (element) =>
    element.matches("details[data-keep][open]") ||
    element.querySelector("details[data-keep][open]") !== null;
  const ENDED_MS = 5000; // how long the row of a call whose menu was open stays

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
    // Remove first: then the remaining children need not be moved, which would lose focus.
    for (const child of [...old.children]) {
      if (!child.id || named.has(child.id)) continue;
      if (inUse(child)) keepEndedRow(child);
      else if (!(Date.now() - Number(child.dataset.ended) < ENDED_MS)) child.remove();
    }
    const current = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
    let at = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      while (at && at.nodeType === Node.ELEMENT_NODE && "ended" in at.dataset) at = at.nextSibling;
      const match = next.id ? current.get(next.id) : null;
      if (match && match.nodeName === next.nodeName) {
        if (match === at) at = at.nextSibling;
        else old.insertBefore(match, at);
        morph(match, next);
      } else if (at && !next.id && !at.id && at.nodeType === next.nodeType && at.nodeName === next.nodeName) {
        const counterpart = at;
        at = at.nextSibling;
        morph(counterpart, next);
      } else {
        old.insertBefore(next, at);
      }
    }
    while (at) {
      const rest = at;
      at = at.nextSibling;
      if (rest.nodeType !== Node.ELEMENT_NODE || !("ended" in rest.dataset)) rest.remove();
    }
  }

  /* The call ended while its menu was open: close the menu, and say so in the row for a moment. Otherwise the
     next call's row would move under the pointer. */
  function keepEndedRow(row) {
    row.dataset.ended = Date.now();
    row.querySelectorAll("details[data-keep]").forEach((menu) => menu.remove());
    row.querySelectorAll("[data-since], [data-silent-since]").forEach((timer) => {
      delete timer.dataset.since;
      delete timer.dataset.silentSince;
    });
    const floor = row.querySelector(".live-floor");
    if (floor) floor.textContent = "Call ended";
  }

  function show(html) {
    const parsed = new DOMParser().parseFromString(html, "text/html");
    for (const fresh of [...parsed.body.children]) {
      const old = fresh.id && document.getElementById(fresh.id);
      if (!old) continue;
      if (fresh.dataset.now) clockOffset = Number(fresh.dataset.now) * 1000 - Date.now();
      const height = old.offsetHeight;
      morph(old, document.importNode(fresh, true));
      // What is below must not jump up when a call ends: the board keeps its greatest height.
      if (fresh.id === "live-board") old.style.minHeight = `${height}px`;
    }
    showCount();
    tick();
  }

  // Timers

  const clock = (seconds) => {
    const parts = [Math.floor(seconds / 60) % 60, seconds % 60].map((part) => String(part).padStart(2, "0"));
    const hours = Math.floor(seconds / 3600);
    return hours ? `${hours}:${parts[0]}:${parts[1]}` : `${Number(parts[0])}:${parts[1]}`;
  };

  function tick() {
    const now = Date.now() + clockOffset;
    const since = (name, element) => Math.max(0, Math.floor(now / 1000 - Number(element.dataset[name])));
    document.querySelectorAll("[data-since]").forEach((timer) => {
      timer.textContent = clock(since("since", timer));
    });
    document.querySelectorAll("[data-silent-since]").forEach((warning) => {
      const seconds = since("silentSince", warning);
      warning.hidden = seconds < 5;
      warning.textContent = `⚠ silent for ${seconds} s`;
    });
  }

  // The socket, and polling as its fallback

  function connect() {
    if (stopped || socket || document.hidden) return;
    const url = new URL(state.dataset.live, window.location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const opened = new WebSocket(url);
    socket = opened;
    receivedAt = Date.now();
    opened.onmessage = (event) => {
      if (socket !== opened) return;
      receivedAt = Date.now();
      failures = 0;
      show(event.data);
      setState("live", "Live");
    };
    opened.onclose = (event) => {
      if (socket === opened) onSocketLost(event.code);
    };
  }

  function onSocketLost(code) {
    const dropped = socket;
    socket = null;
    dropped.onclose = dropped.onmessage = null;
    dropped.close();
    if (code === 4401) return stop();
    if (document.hidden) return;
    poll();
    const pause = RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)];
    window.setTimeout(connect, pause * (0.75 + Math.random() / 2));
  }

  async function poll() {
    if (stopped || document.hidden) return;
    try {
      const response = await fetch(state.dataset.poll, { signal: AbortSignal.timeout(POLL_MS) });
      if (response.redirected || response.status === 403 || response.status === 404) return stop();
      if (!response.ok) throw new Error(response.status);
      const html = await response.text();
      if (state.dataset.state === "live" && socket) return;
      show(html);
      setState("polling", "Updates every 5 s");
    } catch {
      setState("disconnected", "Disconnected");
    }
  }

  function stop() {
    stopped = true;
    setState("stopped", "Updates stopped: you were logged out, or the call was deleted. Reload the page.");
  }

  let polledAt = Date.now();
  window.setInterval(() => {
    tick();
    if (stopped || document.hidden) return;
    if (socket && Date.now() - receivedAt > QUIET_MS) onSocketLost(0);
    if (state.dataset.state !== "live" || !socket) {
      if (Date.now() - polledAt >= POLL_MS) {
        polledAt = Date.now();
        poll();
      }
    }
  }, 1000);

  // A hidden page needs no updates.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) connect();
    else if (socket) onSocketLost(0);
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
      const response = await fetch(form.action, {
        method: "POST",
        body: new URLSearchParams(new FormData(form)),
        headers: { "X-CSRFToken": state.dataset.csrf, "HX-Request": "true" },
        signal: AbortSignal.timeout(15000),
      });
      if (response.redirected || ![200, 409, 502].includes(response.status)) {
        result.textContent = "✗ Permission denied, or you were logged out. Reload the page.";
      } else {
        result.innerHTML = await response.text();
      }
      if (response.ok && !response.redirected) {
        form.reset();
        form.closest("details[data-keep]").open = false;
      }
    } catch {
      result.textContent = "✗ No response from the server. Check the call before you try again.";
    }
    button.disabled = false;
  });

  connect();
})();
