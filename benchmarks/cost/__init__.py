"""What a whole evaluation costs, for any number of photographs, and what breaks first."""
