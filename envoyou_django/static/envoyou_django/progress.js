"use strict";
// Continues an action on events. Without this script, its button does.
document.getElementById("envoyou-step").requestSubmit();
