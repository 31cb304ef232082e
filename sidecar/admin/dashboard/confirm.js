/**
 * Every change asks first, in one native dialog; what the process says to it is shown there.
 * @module
 */
import { Problem, ask, part } from "./api.js";
import { h, text } from "./dom.js";
import { live } from "./live.js";
import { button } from "./parts.js";

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/**
 * @typedef {{title: string, says: string, does: string, isDangerous?: boolean, fields?: HTMLElement[],
 *   path: () => string, done: string}} Question `path` is what is posted to
 */

/** @param {Question} question */
export function confirm(question) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("dialog"));
  const trouble = h("div", { class: "trouble", role: "alert" });
  const yes = h("button", { type: "submit", class: `button ${question.isDangerous ? "danger" : "primary"}` }, question.does);
  const form = h(
    "form",
    {
      method: "dialog",
      onsubmit: (event) => {
        event.preventDefault();
        void act(question, dialog, yes, trouble);
      },
    },
    h("h2", { id: "dialog-title" }, question.title),
    h("p", {}, question.says),
    ...(question.fields ?? []),
    trouble,
    h("div", { class: "actions" }, button("Cancel", () => dialog.close()), yes),
  );
  dialog.replaceChildren(form);
  dialog.showModal();
}

/** @param {Question} question @param {HTMLDialogElement} dialog @param {HTMLButtonElement} yes @param {HTMLElement} trouble */
async function act(question, dialog, yes, trouble) {
  yes.disabled = true;
  trouble.replaceChildren();
  try {
    await ask(question.path(), "POST");
    dialog.close();
    toast(question.done);
    live.soon();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    trouble.append(h("strong", {}, error.status ? `Refused (${error.status})` : "Not done"), ` ${error.message}`);
    if (error.lines.length) trouble.append(h("pre", { tabindex: "0" }, error.lines.join("\n")));
    live.soon();
  } finally {
    yes.disabled = false;
  }
}

let fading = 0;

/** @param {string} words */
export function toast(words) {
  const node = byId("toast");
  text(node, words);
  node.classList.add("shown");
  clearTimeout(fading);
  fading = setTimeout(() => node.classList.remove("shown"), 4000);
}

const TIMES = [
  ["30m", "for 30 minutes"],
  ["1m", "for 1 minute"],
  ["5m", "for 5 minutes"],
  ["15m", "for 15 minutes"],
  ["1h", "for 1 hour"],
  ["ever", "until somebody ends it"],
];

/** @type {Record<string, {title: string, says: string, does: string, done: string}>} */
const OVERRIDES = {
  open: {
    title: "Force open",
    says: "All calls are refused at once (or get the fallback), and the upstream gets nothing.",
    does: "Force open",
    done: "forced open",
  },
  close: {
    title: "Force closed",
    says: "All calls go through, whatever comes of them: nothing protects the upstream.",
    does: "Force closed",
    done: "forced closed",
  },
  auto: {
    title: "Automatic",
    says: "Ends the override: the breaker decides by itself again, and begins closed.",
    does: "Make automatic",
    done: "automatic again",
  },
};

/**
 * @param {string} route @param {string} upstream @param {"open" | "close" | "auto"} action
 * @param {boolean} isShared whether the breaker acts as one with those of other replicas
 */
export function askOverride(route, upstream, action, isShared = false) {
  const words = OVERRIDES[action];
  const time = h("select", { id: "dialog-for" }, ...TIMES.map(([value, label]) => h("option", { value }, label)));
  const own = h("input", { id: "dialog-own", type: "text", placeholder: "such as 90s or 2h", autocomplete: "off" });
  const who = h("input", { id: "dialog-by", type: "text", placeholder: "such as ada@desk", autocomplete: "username", maxlength: "128" });
  const name = [h("label", { for: "dialog-by" }, "Who you are"), who];
  const all = h("input", { id: "dialog-fleet", type: "checkbox" });
  const whole = isShared ? [h("label", { for: "dialog-fleet" }, "At all replicas"), all] : [];
  const fields = [
    h("label", { for: "dialog-for" }, "How long"),
    time,
    h("label", { for: "dialog-own" }, "Another time"),
    own,
    ...name,
  ];
  confirm({
    title: `${words.title}: ${route}`,
    says: `${words.says} Breaker of route ${route} and upstream ${upstream}.`,
    does: words.does,
    isDangerous: action !== "auto",
    fields: [h("div", { class: "fields" }, ...(action === "auto" ? name : fields), ...whole)],
    done: `${route} is ${words.done}.`,
    path: () => {
      const seconds = own.value.trim() || time.value;
      const query = new URLSearchParams({ upstream });
      if (action !== "auto") query.set("for", seconds);
      if (who.value.trim()) query.set("by", who.value.trim());
      if (all.checked) query.set("fleet", "true");
      return `/breakers/${part(route)}/${action}?${query}`;
    },
  });
}

export function askReload() {
  confirm({
    title: "Reload the configuration",
    says: "The file is read and checked. A good one replaces the one in use without refusing a request; a bad one changes nothing.",
    does: "Reload",
    done: "The configuration was reloaded.",
    path: () => "/reload",
  });
}

export function askDrain() {
  confirm({
    title: "Drain this process",
    says: "It stops being ready and closes each client's connection after its next answer. It goes on serving, and does not end. There is no way back but a restart.",
    does: "Drain",
    isDangerous: true,
    done: "The process drains.",
    path: () => "/drain",
  });
}
