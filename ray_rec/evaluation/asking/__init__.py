"""What is asked, and of whom: the log as tables, its split, questions, what came of them."""
