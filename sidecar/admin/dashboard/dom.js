/**
 * Elements made and brought up to date. Text goes in as text alone: nothing here parses markup.
 * @module
 */

const SVG = "http://www.w3.org/2000/svg";

/**
 * @typedef {Node | string | null | undefined | false} Child
 * @typedef {Record<string, string | number | boolean | null | undefined | EventListener>} Attributes
 */

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Attributes} [attributes] `onclick` and the like take a function; null, undefined and false are left out
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  fill(node, attributes, children);
  return node;
}

/**
 * @param {string} tag
 * @param {Attributes} [attributes]
 * @param {...Child} children
 * @returns {SVGElement}
 */
export function svg(tag, attributes = {}, ...children) {
  const node = /** @type {SVGElement} */ (document.createElementNS(SVG, tag));
  fill(node, attributes, children);
  return node;
}

/** @param {Element} node @param {Attributes} attributes @param {Child[]} children */
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else attribute(node, name, value);
  }
  for (const child of children) if (child || child === "") node.append(child);
}

/**
 * Set or remove an attribute, only if that changes anything.
 * @param {Element} node
 * @param {string} name
 * @param {string | number | boolean | null | undefined} value
 */
export function attribute(node, name, value) {
  if (value == null || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

/** Set the text, only if that changes anything. @param {Node} node @param {string | number} value */
export function text(node, value) {
  const wanted = String(value);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** @param {string} name of a symbol in index.html */
export const icon = (name) =>
  svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#i-${name}` }));

/** @param {SVGElement} node made by `icon` @param {string} name */
export const setIcon = (node, name) => attribute(/** @type {Element} */ (node.firstChild), "href", `#i-${name}`);

/**
 * @template T
 * @typedef {{node: Element, update: (item: T) => void}} Part an element that follows its data
 */

/**
 * Make the children of `container` those of `items`, in order. What stays keeps its element, and so its focus.
 * @template T
 */
export class List {
  /**
   * @param {Element} container
   * @param {(item: T) => string} key unique
   * @param {(item: T) => Part<T>} make
   */
  constructor(container, key, make) {
    this.container = container;
    this.key = key;
    this.make = make;
    /** @type {Map<string, Part<T>>} */
    this.parts = new Map();
  }

  /** @param {T[]} items */
  update(items) {
    const kept = new Map();
    for (const item of items) {
      const key = this.key(item);
      const part = this.parts.get(key) ?? this.make(item);
      part.update(item);
      kept.set(key, part);
    }
    for (const [key, part] of this.parts) if (!kept.has(key)) part.node.remove();
    this.parts = kept;
    let at = this.container.firstElementChild;
    for (const { node } of kept.values()) {
      if (node === at) at = node.nextElementSibling;
      else this.container.insertBefore(node, at);
    }
  }
}
