"""One module or package per recipe; its name is the recipe's name."""
