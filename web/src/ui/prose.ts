/**
 * What a model wrote, as something to look at: markdown to a few harmless elements, and nothing else.
 *
 * HTML in the text is shown as text. What marked makes of the rest goes through DOMPurify with a short list of elements, and
 * only then into the document. Nothing is ever loaded: images become words, and links say where they lead.
 */

import DOMPurify from "dompurify";
import { Marked, type Token, type TokensList } from "marked";

const TAGS = [
  ..."a blockquote br code del em h1 h2 h3 h4 h5 h6 hr input li ol p pre span strong table tbody td th thead tr ul".split(
    " ",
  ),
];
const ATTRIBUTES = ["href", "class", "type", "checked", "disabled", "start", "align"];
const CLASSES = /^(?:absent|language-[\w+#.-]{1,32})$/;

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (mark) => `&#${mark.charCodeAt(0)};`);
}

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escaped(text),
    image: ({ href, text }) =>
      `<span class="absent">image not loaded: ${escaped(text || "without a description")} (${escaped(shown(href))})</span>`,
  },
});

/** Where an address leads, in as few characters as tell. */
function shown(href: string): string {
  try {
    const url = new URL(href);
    return url.protocol === "http:" || url.protocol === "https:"
      ? url.host
      : url.protocol === "mailto:"
        ? url.pathname
        : url.protocol;
  } catch {
    return href.slice(0, 60);
  }
}

function safe(href: string): boolean {
  try {
    return ["http:", "https:", "mailto:"].includes(new URL(href).protocol);
  } catch {
    return false; // relative ones lead into this page
  }
}

export interface Block {
  readonly token: Token;
  readonly raw: string;
}

/** The text's blocks, in order: while an answer grows only its last ones change. */
export function blocks(text: string): Block[] {
  const tokens: TokensList = marked.lexer(text);
  return tokens
    .filter((token) => token.type !== "space" && token.type !== "def")
    .map((token) => ({ token, raw: token.raw }));
}

function element(name: string, className: string, ...children: (Node | string)[]): HTMLElement {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function finishLinks(root: DocumentFragment): void {
  for (const link of root.querySelectorAll("a")) {
    const href = link.getAttribute("href") ?? "";
    if (!safe(href)) {
      link.replaceWith(...link.childNodes, element("span", "target", href ? `(${shown(href)})` : ""));
      continue;
    }
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
    link.referrerPolicy = "no-referrer";
    link.title = href;
    if (link.textContent?.trim() !== href) link.after(element("span", "target", `(${shown(href)})`));
  }
}

function finishCode(root: DocumentFragment): void {
  for (const pre of root.querySelectorAll("pre")) {
    const code = pre.querySelector("code");
    const language = [...(code?.classList ?? [])].find((name) => name.startsWith("language-"))?.slice(9) ?? "";
    const copy = element("button", "", "Copy");
    copy.setAttribute("type", "button");
    copy.dataset.copy = "";
    copy.setAttribute("aria-label", language ? `Copy this ${language} code` : "Copy this code");
    pre.tabIndex = 0; // long lines scroll, also by keyboard
    pre.setAttribute("aria-label", language ? `${language} code` : "code");
    pre.setAttribute("role", "region");
    const box = element("div", "code", element("div", "code-head", element("span", "", language || "text"), copy));
    pre.replaceWith(box);
    box.append(pre);
  }
}

/** One block as elements. */
export function rendered(block: Block): DocumentFragment {
  const fragment = DOMPurify.sanitize(marked.parser([block.token]), {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  });
  for (const found of fragment.querySelectorAll("[class]")) {
    found.classList.remove(...[...found.classList].filter((name) => !CLASSES.test(name)));
  }
  for (const box of fragment.querySelectorAll("input")) {
    box.disabled = true;
    if (box.type !== "checkbox") box.remove();
  }
  for (const table of fragment.querySelectorAll("table")) {
    const scroll = element("div", "table");
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", "table");
    table.replaceWith(scroll);
    scroll.append(table);
  }
  finishLinks(fragment);
  finishCode(fragment);
  return fragment;
}
