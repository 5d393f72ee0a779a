import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Icon } from "./icons.tsx";

interface Props {
  title: string;
  kind?: "dialog" | "panel";
  onClose: () => void;
  children: ComponentChildren;
}

/** A native modal dialog: the browser keeps the focus inside, closes it on Escape and gives the focus back. */
export function Modal({ title, kind = "dialog", onClose, children }: Props) {
  const at = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const box = at.current;
    box?.showModal();
    return () => box?.close();
  }, []);
  const onClick = (event: MouseEvent) => {
    if (event.target === at.current) onClose(); // the backdrop
  };
  const head = (
    <>
      <h2>{title}</h2>
      <button type="button" class="icon" aria-label="Close" onClick={onClose}>
        <Icon name="close" />
      </button>
    </>
  );
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Escape closes a dialog by itself
    <dialog
      ref={at}
      class={kind === "panel" ? "panel" : ""}
      aria-label={title}
      onClick={onClick}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
    >
      {kind === "panel" ? (
        <>
          <header class="panel-head">{head}</header>
          {children}
        </>
      ) : (
        <div class="dialog">
          <header class="dialog-head">{head}</header>
          {children}
        </div>
      )}
    </dialog>
  );
}
