// Only the choice of light or dark: everything on the page is there without it.
(function () {
  var root = document.documentElement, button = document.getElementById("theme"), key = "llamapatch-theme";
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function remembered() { try { return localStorage.getItem(key); } catch (e) { return null; } }
  function now() { return root.dataset.theme || (dark.matches ? "dark" : "light"); }
  function show() { button.textContent = now() === "dark" ? "Light colours" : "Dark colours"; }
  var before = remembered();
  if (before === "dark" || before === "light") { root.dataset.theme = before; }
  button.hidden = false;
  show();
  dark.addEventListener("change", show);
  button.addEventListener("click", function () {
    root.dataset.theme = now() === "dark" ? "light" : "dark";
    try { localStorage.setItem(key, root.dataset.theme); } catch (e) { /* a file: page may have no storage */ }
    show();
  });
})();
