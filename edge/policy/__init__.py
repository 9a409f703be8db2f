"""Pure decisions: lifecycle tables, auth, routing. State and clock are passed in; nothing here logs or does I/O."""
