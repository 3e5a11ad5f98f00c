// The page of errors: shows the entries that a pasted line fits, or that hold the words that were typed.
(() => {
  const field = document.getElementById("coat-error");
  if (!field) return;
  const found = document.getElementById("coat-error-found");
  const entries = [...document.querySelectorAll(".coat-error")].map((element) => ({
    element,
    pattern: new RegExp(element.dataset.pattern),
    text: element.textContent.toLowerCase(),
    letters: element.querySelector("code").textContent.replace(/‹[^›]*›|…|\W/g, "").length,
  }));
  const copy = (entry) => {
    const shown = entry.element.cloneNode(true);
    shown.hidden = false;
    return shown;
  };
  field.addEventListener("input", () => {
    const typed = field.value.replace(/^error: /, "").trim();
    const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
    let fits = typed ? entries.filter((e) => e.pattern.test(typed)) : [];
    fits.sort((a, b) => b.letters - a.letters); // what has most of its own letters in the line, first
    if (!fits.length) fits = words.length ? entries.filter((e) => words.every((w) => e.text.includes(w))) : [];
    found.replaceChildren(...fits.slice(0, 12).map(copy));
    if (typed && !fits.length) found.textContent = "No line of coat's fits that.";
  });
})();
