// Light, dark, or what the system says.

const themeChoices = ["system", "light", "dark"];
const themeListeners = new Set();

function applyTheme(choice) {
  const dark = choice === "dark" || (choice === "system" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  document.documentElement.style.colorScheme = dark ? "dark" : "light";
  const button = document.getElementById("theme");
  button.textContent = { system: "Auto", light: "Light", dark: "Dark" }[choice];
  button.setAttribute("aria-label", `Colours: ${choice === "system" ? "as the system" : choice}. Press to change`);
  button.dataset.choice = choice;
  // Canvases take their colours from the sheet: they have to be drawn again.
  themeListeners.forEach((listener) => listener());
}

function startTheme() {
  let choice = "system";
  // A page from a file may have no storage.
  try { choice = localStorage.getItem("steptime-theme") ?? "system"; } catch { /* none */ }
  if (!themeChoices.includes(choice)) choice = "system";
  applyTheme(choice);
  document.getElementById("theme").addEventListener("click", () => {
    choice = themeChoices[(themeChoices.indexOf(choice) + 1) % themeChoices.length];
    try { localStorage.setItem("steptime-theme", choice); } catch { /* none */ }
    applyTheme(choice);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => applyTheme(choice));
}
