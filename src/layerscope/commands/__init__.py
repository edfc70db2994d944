"""One file a command, each loaded when it is asked for; `options` has what several of them share."""
