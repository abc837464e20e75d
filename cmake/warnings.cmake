# Flags shared by every target. Never -ffast-math: same seed, same bits.
add_library(brick_flags INTERFACE)
target_compile_options(brick_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
                       -fno-math-errno -ffp-contract=off)
if(BRICK_WERROR)
  target_compile_options(brick_flags INTERFACE -Werror)
endif()
if(BRICK_SANITIZE)
  add_compile_options(-fsanitize=${BRICK_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${BRICK_SANITIZE})
  add_compile_definitions(BRICK_SANITIZED)
endif()
