"""The applications that the bench measures, one a file, each as its documentation has it."""
