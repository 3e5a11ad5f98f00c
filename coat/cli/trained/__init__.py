"""Commands for a trained student: answers, evaluations, exports."""
