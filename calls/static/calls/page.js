/* On every staff page: send the viewer's time zone to the server, focus search on `/`, close menus, copy ids, make
   rows clickable. */
"use strict";

(() => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone) {
    document.cookie = `tz=${encodeURIComponent(zone)}; path=/; max-age=31536000; samesite=lax`;
  }

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select, [contenteditable]");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const search = document.querySelector("#searchbar, input[name=q]");
    if (search) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  });

  // Menus: one at a time; Escape or a click elsewhere closes it.
  const openMenus = () => document.querySelectorAll("details[data-menu][open]");

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of openMenus()) {
      const hadFocus = menu.contains(document.activeElement);
      menu.open = false;
      if (hadFocus) menu.querySelector("summary").focus();
    }
  });

  document.addEventListener("click", (event) => {
    for (const menu of openMenus()) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });

  // Copying needs a page that was loaded over https or from this computer.
  if (navigator.clipboard) {
    document.documentElement.dataset.canCopy = "";
    document.addEventListener("click", async (event) => {
      const button = event.target.closest("[data-copy]");
      if (!button) return;
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    });
  }

  // A click on a row follows its first link. Middle clicks and text selection are left to the browser.
  document.addEventListener("click", (event) => {
    const row = event.target.closest(".calls tr[data-opens], #result_list tbody tr");
    if (!row || event.defaultPrevented || event.button !== 0) return;
    if (event.target.closest("a, button, input, label, select, summary")) return;
    if (String(window.getSelection())) return;
    const link = row.querySelector("a[href]");
    if (!link) return;
    if (event.ctrlKey || event.metaKey) window.open(link.href);
    else window.location.assign(link.href);
  });
})();
