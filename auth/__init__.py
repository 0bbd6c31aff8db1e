"""Who is calling and what they may do: clients, tokens, scopes and grants."""
