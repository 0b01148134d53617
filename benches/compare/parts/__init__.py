"""What the scripts of the comparison are made of. Nothing in here is part of the product."""
