// Light or dark as Airflow is: it keeps "light", "dark" or "system" under this key, and tells other windows of changes.
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const follow = () => {
    let chosen = null;
    try { chosen = localStorage.getItem("theme"); } catch { /* not allowed: as the system is */ }
    const isDark = chosen === "dark" || (chosen !== "light" && dark.matches);
    document.documentElement.style.colorScheme = isDark ? "dark" : "light";
  };
  follow();
  dark.addEventListener("change", follow);
  window.addEventListener("storage", follow);
})();
