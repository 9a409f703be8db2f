// What every page has: what it was asked for, and a way to tell the test what it sees.
const asked = new URLSearchParams(location.search);

function report(told) {
  fetch("/report", { method: "POST", body: JSON.stringify(told), keepalive: true });
}

window.addEventListener("error", (event) => report({ bug: event.message }));
