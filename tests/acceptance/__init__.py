"""What a stranger sees of a running server: only HTTP and the command line, nothing imported from the product."""
