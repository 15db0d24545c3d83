-- The same sources run on 5.1, LuaJIT, 5.3 and 5.4.
std = "max"
max_line_length = 132
ignore = { "212/self" }
-- Annotations for editors: functions without bodies.
files["lua/llmspell_state/meta*.lua"].ignore = { "212", "241", "211", "221" }
