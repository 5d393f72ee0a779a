import { grouped } from "./conversation.ts";
import { conversations, current, dialog, railOpen } from "./desk.ts";
import { Icon, Mark } from "./icons.tsx";
import { show } from "./keeping.ts";
import { flipTheme, theme } from "./theme.ts";

/** The list of conversations. */
export function Rail() {
  const groups = grouped(conversations.value, new Date());
  const dark = theme.value === "dark";
  return (
    <>
      <nav class={`rail ${railOpen.value ? "open" : ""}`} id="rail" aria-label="Conversations">
        <div class="rail-head">
          <span class="brand">
            <Mark /> Strongroom
          </span>
          <button
            type="button"
            class="icon"
            title="New conversation (Alt+N)"
            aria-label="New conversation"
            onClick={() => show(null)}
          >
            <Icon name="plus" size={18} />
          </button>
        </div>
        <div class="rail-list">
          {groups.length === 0 && (
            <p class="rail-empty">Conversations appear here. They are kept in this browser alone, encrypted.</p>
          )}
          {groups.map(({ title, members }) => (
            <section key={title}>
              <h2>{title}</h2>
              <ul>
                {members.map((one) => (
                  <li key={one.id}>
                    <button
                      type="button"
                      class="rail-item cut"
                      aria-current={one.id === current.value ? "true" : undefined}
                      onClick={() => show(one.id)}
                    >
                      {one.title}
                    </button>
                  </li>
                ))}
              </ul>
            </section>
          ))}
        </div>
        <div class="rail-foot">
          <button
            type="button"
            class="icon"
            title="Settings"
            aria-label="Settings"
            onClick={() => (dialog.value = "settings")}
          >
            <Icon name="gear" size={17} />
          </button>
          <button
            type="button"
            class="icon"
            title="Keyboard shortcuts (?)"
            aria-label="Keyboard shortcuts"
            onClick={() => (dialog.value = "keys")}
          >
            <Icon name="keyboard" size={17} />
          </button>
          <button
            type="button"
            class="icon"
            title={dark ? "Light" : "Dark"}
            aria-label={dark ? "Switch to light" : "Switch to dark"}
            onClick={flipTheme}
          >
            <Icon name={dark ? "sun" : "moon"} size={17} />
          </button>
        </div>
      </nav>
      <button
        type="button"
        class="veil"
        aria-label="Close the list"
        tabIndex={-1}
        onClick={() => (railOpen.value = false)}
      />
    </>
  );
}
