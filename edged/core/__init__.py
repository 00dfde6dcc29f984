"""Floor 0: the words every room shares. numpy and the standard library only."""
