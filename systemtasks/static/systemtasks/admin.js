// The filters above a list: a choice takes effect at once, and what is empty stays out of the address.
document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector("form.st-bar");
  if (!form) return;
  form.addEventListener("change", (event) => {
    if (event.target.matches("select")) form.requestSubmit();
  });
  form.addEventListener("submit", () => {
    for (const field of form.elements) field.disabled ||= field.name !== "" && field.value === "";
  });
  // A page that the browser kept for its back button has them disabled still.
  window.addEventListener("pageshow", () => {
    for (const field of form.elements) field.disabled = false;
  });
});
