// Before anything is drawn: scripts run here, and the theme that was chosen, if one was.
"use strict";
document.documentElement.classList.add("js");
try {
  document.documentElement.style.colorScheme = localStorage.getItem("iadd-theme") || "";
} catch { /* A page opened as a file may have no storage; then the system's theme stands. */ }
