"""From files to pictures, and from pictures to what a network expects."""
