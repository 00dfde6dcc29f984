"""One module for each question; support/ has what they share."""
