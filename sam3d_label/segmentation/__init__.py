"""From prompts to a mask on the stored grid."""
