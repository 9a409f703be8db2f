"""Who is calling, and what they may do: keys, tokens, tickets, permissions, hosts, failed logins."""
