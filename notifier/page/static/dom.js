// The document: its parts, its templates, and errors at fields. Whatever comes from outside is
// written with textContent only.

export const part = (id) => document.getElementById(id);

export function copyOf(template) {
  return part(template).content.firstElementChild.cloneNode(true);
}

export function fill(entry, texts) {
  for (const [name, text] of Object.entries(texts)) {
    entry.querySelector(`[data-part="${name}"]`).textContent = text;
  }
}

// Show a moment: the time of day, after its date unless that is today's.
export function stamp(entry, time) {
  const element = entry.querySelector("time");
  const moment = new Date(time);
  const isToday = moment.toDateString() === new Date().toDateString();
  element.dateTime = time;
  element.textContent = isToday ? moment.toLocaleTimeString() : moment.toLocaleString();
}

export function keepFirst(list, most) {
  while (list.childElementCount > most) list.lastElementChild.remove();
}

export function showFieldError(id, text) {
  part(`${id}-error`).textContent = text;
  part(id).setAttribute("aria-invalid", String(text !== ""));
}

export function refuseField(id, text) {
  showFieldError(id, text);
  part(id).focus();
}

export function onSubmit(id, act) {
  part(id).addEventListener("submit", (event) => {
    event.preventDefault();
    act(event.currentTarget);
  });
}
